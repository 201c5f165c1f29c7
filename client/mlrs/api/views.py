"""Advisors, runs and pending answers without the methods that wait: shared by threads and asyncio."""

from __future__ import annotations

import dataclasses
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from mlrs.adapters import RunState, TrialLoop
from mlrs.api.actions import C, finished
from mlrs.api.new_ledger import adopted, read_off, run_ledger, sweep_ledger
from mlrs.api.searching import searched
from mlrs.errors import ClosedError
from mlrs.ledger.backlog import E
from mlrs.ledger.entries import Entry, Observation
from mlrs.ledger.ledger import Ledger
from mlrs.ledger.updates import Update
from mlrs.protocol.deadline import Deadline
from mlrs.protocol.joining import completed
from mlrs.protocol.waiting import Action, Awaited, Perform, Waiting, answered, opened
from mlrs.values import arguments as check
from mlrs.values.checks import flag
from mlrs.values.options import RunOptions, SweepOptions
from mlrs.values.search_types import SearchResult
from mlrs.values.signals import Signals
from mlrs.values.types import Advice, AdviceReason, RunConfig, RunInfo
from mlrs.wire.meta_calls import run_update

S = TypeVar("S", bound=Awaited)


class WithBlock(ABC):
    """Detaches at the end of its `with` block."""

    @abstractmethod
    def detach(self) -> None:
        """End the use of the object here."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()


class AsyncWithBlock(ABC):
    """Detaches at the end of its `async with` block."""

    @abstractmethod
    def detach(self) -> None:
        """End the use of the object here."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()


class AdvisorView(Generic[C]):
    """The part of an advisor that does not wait."""

    def __init__(self, connection: C) -> None:
        self._connection = connection

    def __repr__(self) -> str:
        return f"<Advisor of {self._connection.addresses}>"

    def _new_run(self, task: str, options: RunOptions) -> Ledger[Entry]:
        connection = self._connection
        ledger = run_ledger(connection.signal(), connection.timeout_s, task, **options)
        connection.session.add(ledger)
        return ledger

    def _new_sweep(self, ids: Sequence[str], options: SweepOptions) -> Ledger[Any]:
        ledger = sweep_ledger(self._connection.signal(), ids, **options)
        self._connection.session.add(ledger)
        return ledger

    def _opened(self, ledger: Ledger[Any]) -> Waiting[None]:
        deadline = self._connection.deadline(ledger.start.timeout_s)
        return opened(self._connection.session, ledger, deadline)


class RunsView(Generic[C, E]):
    """The common part of runs and sweeps."""

    def __init__(self, connection: C, ledger: Ledger[E]) -> None:
        self._connection = connection
        self._ledger = ledger
        self._detached = False

    @property
    def durable_step(self) -> int:
        """Observations up to and including this step survive a crash of the daemon; -1: none yet."""
        return self._ledger.backlog.durable_step

    @property
    def fallback_steps(self) -> int:
        """The number of steps that the fallback answered while the daemon was unreachable."""
        return self._ledger.standby.steps

    def detach(self) -> None:
        """End the use of the runs here without finishing them, as the end of a `with` block does."""
        self._detached = True
        self._connection.leave(self._ledger)

    def _check_attached(self) -> None:
        if self._detached:
            raise ClosedError(f"{self._ledger.label} was left; open it again with {self._reopened_by()}")

    def _reopened_by(self) -> str:
        """Return the call that opens it again, for messages."""
        raise NotImplementedError

    def _finished(
        self, metrics: Sequence[float], timeout_s: float | None, *, higher_is_better: bool
    ) -> Action[tuple[RunInfo, ...] | None]:
        flag("higher_is_better", higher_is_better)
        self._connection.locked(lambda: self._ledger.end(metrics, higher_is_better=higher_is_better))
        return finished(self._connection, self._ledger, timeout_s)


class RunView(RunsView[C, Entry]):
    """The part of a run that does not wait."""

    def __init__(self, connection: C, ledger: Ledger[Entry]) -> None:
        super().__init__(connection, ledger)
        self._lag = Lag()

    @property
    def id(self) -> str:
        """The run's id: the given one, or the task's name followed by a name that the client made."""
        return self._ledger.run_ids[0]

    @property
    def untold_steps(self) -> int:
        """The number of steps that `on_advice` was not told, because it did not keep up."""
        listener = self._ledger.listener
        return 0 if listener is None else listener.untold

    @property
    def task(self) -> str:
        """The name of what is trained."""
        return self._ledger.start.task

    @property
    def is_open(self) -> bool:
        """Whether the daemon has opened the run, which it does when the first step is known."""
        return self._ledger.is_open

    @property
    def config(self) -> RunConfig:
        """The config as the daemon resolved it. Opens the run."""
        return self._opened().config

    @property
    def why(self) -> str:
        """Why the run begins as it does, by the memory of its task, in a sentence. Opens the run."""
        ledger = self._opened()
        if not ledger.is_open:
            return "no daemon has answered yet"
        if (recalled := ledger.config.recalled) is not None:
            return recalled.why
        if stated := ledger.start.stated(0):
            cause = f": it was given {stated}="
        else:
            cause = ": it has no horizon" if ledger.config.horizon is None else ""
        return f"the run takes no part in the memory of its task{cause}"

    @property
    def created(self) -> bool:
        """Whether opening the run created it; otherwise it existed before. Opens the run."""
        return self._opened().created

    @property
    def next_step(self) -> int:
        """The step to observe next. Opens the run."""
        return self._opened().next_step

    def state(self) -> RunState:
        """Return the position of the run, for a checkpoint that is taken between two steps.

        Opens the run only where its next step cannot be known without the daemon.
        """
        ledger = self._ledger
        if ledger.first_step is None and ledger.start.way(None).mode == "open":
            ledger = self._opened()
        return RunState(self.id, ledger.next_step, ledger.standby.last_lr)

    def validate(self, step: int, loss: float) -> None:
        """Tell a validation loss. It travels with an observation, and is not answered; does not wait.

        That is the first new observation of its step or a later one. It is part of that observation: recorded
        with it, and read by rescue, which finds by it that a training overfits, and by models that know
        validation losses. Lower must be better: an accuracy would be taken for a loss that rises. Tell the
        same loss on the same examples throughout. If several are told between two observations, only the
        newest one travels. One that no observation of its step or a later one follows is sent when the run is
        finished, for the memory of its task.

        Args:
            step: the step before whose update the loss was measured. It may be some steps ahead of the
                observations; the loss then waits for its step.
            loss: any real number, or an array or tensor of one element. NaN and infinities are recorded, and
                nothing reads them.

        Raises:
            InvalidArgumentError: the step or the loss is invalid, or the step is more than 100 beyond the
                one to observe next.
            ClosedError, ForkedError: see `Advisor`.
        """
        self._check_attached()
        step, loss = check.step(step), check.loss(loss)
        self._connection.locked(lambda: self._ledger.validate(step, loss))

    def newest_lr(self, before: int) -> float | None:
        """Return the newest learning rate of the steps before one that were observed with `lagged`.

        For adapters that know a loss only after they need the learning rate. Does not wait.

        Returns:
            The learning rate; `None`: no step has one yet.

        Raises:
            MlrsError: the daemon refused one of these steps; the error gives the reason.
        """
        return self._lag.newest(check.step(before, "before"))

    def newest_restore(self, before: int) -> bool:
        """Return whether advice of the steps before one, observed with `lagged`, asks to restore a state.

        For adapters. Advice counts once: in the first call after it arrived. Does not wait.

        Raises:
            MlrsError: as `newest_lr`.
        """
        return self._lag.restore(check.step(before, "before"))

    @property
    def rank(self) -> int | None:
        """The rank of this process; `None`: the run has no ranks."""
        return self._ledger.rank

    def __repr__(self) -> str:
        where = f"next step {self._ledger.next_step}" if self._ledger.is_open else "not open yet"
        return f"<{type(self).__name__} {self.id!r}: {where}, {self._ledger.config}>"

    def _opened(self) -> Ledger[Entry]:
        """Return the ledger of the run, which is open."""
        raise NotImplementedError

    def _reopened_by(self) -> str:
        return f"advisor.run({self.task!r}, id={self.id!r}, on_existing='resume')"

    def _open(self, timeout_s: float | None = None) -> Action[None]:
        self._check_attached()
        deadline = self._connection.deadline_of(self._ledger, timeout_s)
        yield opened(self._connection.session, self._ledger, deadline)

    def _resume(self, state: RunState) -> Action[None]:
        self._check_attached()
        connection, before, lag = self._connection, self._ledger, self._lag
        ledger = connection.locked(lambda: adopted(before, connection.signal(), state))
        if ledger is before:
            return
        try:
            connection.session.add(ledger)
            self._ledger, self._lag = ledger, Lag()
            yield from self._open()
        except BaseException:
            self._ledger, self._lag = before, lag
            raise
        if ledger.run_ids == before.run_ids:
            connection.locked(before.drop)
        connection.leave(before)
        before.listener = None  # its late answers are of steps that are observed again

    def _describe(self, default_lr: float | None, config: dict[str, Any]) -> Action[None]:
        self._check_attached()
        if (lacking := read_off(self._ledger, default_lr, **config)) is not None:
            session, ledger = self._connection.session, self._ledger
            is_new = ledger.next_step == 0 and ledger.config.found is None
            yield Perform(completed(session, ledger, lacking, is_new=is_new), session.timeout_s)

    def _search(
        self,
        loop: TrialLoop,
        start: str | Callable[[], str] | None,
        timeout_s: float | None,
        *,
        always: bool,
        charge_steps: bool,
    ) -> Action[SearchResult]:
        self._check_attached()
        return searched(
            self._connection, self._ledger, loop, start, timeout_s, always=always, charge_steps=charge_steps
        )

    def _observe(
        self,
        step: int,
        loss: float,
        samples: float | None,
        signals: Signals | None,
        *,
        restored: bool,
        lagged: bool,
    ) -> tuple[Entry, bool, float | None]:
        """Send an observation; return its entry, whether it is new and, if `lagged`, the newest LR."""
        self._check_attached()
        connection, step, observed = (
            self._connection,
            check.step(step),
            self._observed(loss, samples, signals, restored),
        )
        if not lagged:
            return *connection.observe(self._ledger, step, observed), None
        connection.check()
        lr = self._lag.newest(before=step)
        entry, is_new = connection.observe(self._ledger, step, observed)
        self._lag.add(entry)
        if lr is not None:
            lr = connection.lagging(self._ledger, entry, lr, self._lag.late_s())
        return entry, is_new, lr

    def _observed(
        self, loss: object, samples: object, signals: object, restored: object
    ) -> float | Observation:
        """Return a checked loss, with what comes with it; for a rank, with the number of its samples."""
        checked, count, told = check.loss(loss), check.samples(samples), check.signals(signals)
        back = flag("restored", restored)
        if self._ledger.rank is None:
            count = 1.0
            if told is None and not back:
                return checked
        return Observation(checked, count, told, restored=back)

    def _adapt(self, step: int, alignment: float, validation_loss: float | None) -> Update:
        self._check_attached()
        return self._connection.adapt(self._ledger, *run_update(step, alignment, validation_loss))


class Lag:
    """The advice of a loop that never waits: at each step, the newest advice of the earlier steps.

    May be shared by threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: deque[Entry] = deque()
        self._newest: float | None = None
        self._restore = False  # whether an advice asks for it since it was read last
        self._since: float | None = None  # when the wait for the answer to `_oldest` began
        self._oldest = -1  # the oldest step without an answer

    def newest(self, before: int) -> float | None:
        """Return the newest learning rate of the steps before one; `None`: there is none yet."""
        with self._lock:
            while self._sent and self._sent[0].done and self._sent[0].step < before:
                entry = self._sent.popleft()
                if entry.error is not None:  # it covers the steps refused with it
                    self._sent = deque(other for other in self._sent if other.error is None)
                self._newest = entry.lr()
                self._restore |= entry.restore
            return self._newest

    def restore(self, before: int) -> bool:
        """Return whether an advice of the steps before one asks to restore; each counts in one call only."""
        self.newest(before)
        with self._lock:
            asked, self._restore = self._restore, False
        return asked

    def add(self, entry: Entry) -> None:
        """Add a step that was sent; it replaces earlier entries of this step and of later ones."""
        with self._lock:
            while self._sent and self._sent[-1].step >= entry.step:
                self._sent.pop()
            self._sent.append(entry)

    def late_s(self) -> float:
        """Return how long the oldest unanswered step before the newest has waited, in seconds; 0: none."""
        with self._lock:
            if len(self._sent) <= 1:
                self._since = None
                return 0.0
            since = self._since
            if since is None or self._oldest != self._sent[0].step:
                self._oldest, self._since = self._sent[0].step, time.monotonic()
                return 0.0
            return time.monotonic() - since


class SentView(Generic[C, S]):
    """An observation or a meta update that was sent."""

    def __init__(self, connection: C, ledger: Ledger[Any], entry: S) -> None:
        self._connection = connection
        self._ledger = ledger
        self._entry = entry

    @property
    def step(self) -> int:
        """Its step."""
        return self._entry.step

    def done(self) -> bool:
        """Return whether the answer, or the refusal, has arrived."""
        return self._entry.done

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of step {self.step}, {'done' if self.done() else 'waiting'}>"

    def _is_done(self) -> bool:
        """Return whether there is nothing to wait for. Works after the advisor was closed, too."""
        self._connection.check_process()
        return self._entry.done

    def _answered(self, timeout_s: float | None) -> Waiting[None]:
        session = self._connection.session
        return answered(session, self._ledger, self._entry, self._deadline(timeout_s))

    def _deadline(self, timeout_s: float | None) -> Deadline:
        return self._connection.deadline(timeout_s)


class PendingView(SentView[C, Entry]):
    """An observation that was sent."""

    def __init__(
        self,
        connection: C,
        ledger: Ledger[Entry],
        entry: Entry,
        is_new: bool,  # noqa: FBT001 # as `_observe` returns it
        lagged_lr: float | None = None,
    ) -> None:
        super().__init__(connection, ledger, entry)
        self._is_new = is_new
        self._lagged_lr = lagged_lr

    @property
    def loss(self) -> float:
        """The loss that was observed."""
        return self._entry.loss

    @property
    def validation_loss(self) -> float | None:
        """The newest validation loss, if one travels with the observation."""
        told = self._entry.validation
        return None if told is None else told.loss

    def _deadline(self, timeout_s: float | None) -> Deadline:
        return self._connection.deadline_of(self._ledger, timeout_s)

    def _result(self) -> Advice:
        advice = self._entry.result()
        return advice if self._is_new else dataclasses.replace(advice, reason=AdviceReason.REPLAYED)
