"""Runs and pending advice of the asyncio client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from mlrs_client import _arguments as check
from mlrs_client import _calls as calls
from mlrs_client._aio_connection import Connection, Signal
from mlrs_client._deadline import Deadline
from mlrs_client._entries import Entry
from mlrs_client._exceptions import MlrsError, StepAheadError, UnavailableError, UsageError
from mlrs_client._joining import completed
from mlrs_client._ledger import Ledger
from mlrs_client._meta_calls import run_update
from mlrs_client._meta_types import Adaptation
from mlrs_client._starting import adopted, read_off
from mlrs_client._types import Advice, RunInfo
from mlrs_client._unsent import let_go
from mlrs_client._updates import Update
from mlrs_client._views import Lag, PendingUpdateView, PendingView, RunView
from mlrs_client._waiting import answered, check_complete, is_away, lagging, opened, paused, settled
from mlrs_client.adapters import RunState


class _Detachable(Protocol):
    def detach(self) -> None:
        """Leave the run, or the runs, without finishing."""


Held = TypeVar("Held", bound=_Detachable)


class Opening(Generic[Held]):
    """A run, or a sweep, that is about to be opened: await it, or enter it with `async with`."""

    def __init__(self, open_: Callable[[], Awaitable[Held]]) -> None:
        self._open = open_
        self._opened: Held | None = None

    def __await__(self) -> Generator[Any, None, Held]:
        return self._open().__await__()

    async def __aenter__(self) -> Held:
        self._opened = await self._open()
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            self._opened.detach()


class Run(RunView):
    """A training run. See `mlrs_client.Run`."""

    def __init__(self, connection: Connection, ledger: Ledger[Entry]) -> None:
        super().__init__(ledger)
        self._connection = connection

    async def open(self, *, timeout_s: float | None = None) -> Self:
        """Open the run now. See `mlrs_client.Run.open`."""
        self._check_attached()
        deadline = self._connection.deadline_of(self._ledger, timeout_s)
        await self._connection.wait(opened(self._connection.session, self._ledger, deadline))
        return self

    async def resume(self, state: RunState) -> None:
        """Go on from a checkpoint. See `mlrs_client.Run.resume`."""
        self._check_attached()
        before = self._ledger, self._lag
        ledger = adopted(self._ledger, Signal(), state)
        if ledger is self._ledger:
            return
        try:
            self._connection.session.add(ledger)
            self._ledger, self._lag = ledger, Lag()
            await self.open()
        except BaseException:
            self._ledger, self._lag = before
            raise
        if ledger.run_ids == before[0].run_ids:
            before[0].drop()
        self._connection.session.forget(before[0])

    async def describe(self, *, default_lr: float | None = None, **config: Any) -> None:
        """Say what an adapter reads off the training loop. See `mlrs_client.Run.describe`."""
        self._check_attached()
        if (lacking := read_off(self._ledger, default_lr, **config)) is not None:
            await self._connection.perform(completed(self._connection.session, self._ledger, lacking))

    def _opened(self) -> Ledger[Entry]:
        if not self._ledger.is_open and self._ledger.standby.outage is None:
            raise UsageError(f"run {self.id!r} is not open yet; await run.open() first")
        return self._ledger

    def observe(
        self, step: int, loss: float, *, samples: float | None = None, lagged: bool = False
    ) -> Pending:
        """Send the loss of a step and return at once; not to be awaited itself. See `mlrs_client.Run`."""
        self._check_attached()
        self._connection.check()
        session, step, observed = self._connection.session, check.step(step), self._observed(loss, samples)
        lr = self._lag.newest(before=step) if lagged else None
        entry, is_new = session.observe(self._ledger, step, observed)
        if lagged:
            self._lag.add(entry)
        if lr is not None:
            lr = lagging(session, self._ledger, entry, lr, self._lag.late_s())
        return Pending(self._connection, self._ledger, entry, replayed=not is_new, lagged_lr=lr)

    async def next_lr(
        self,
        step: int,
        loss: float,
        *,
        samples: float | None = None,
        lagged: bool = False,
        timeout_s: float | None = None,
    ) -> float:
        """Return the learning rate for the update of a step. See `mlrs_client.Run.next_lr`."""
        return await self.observe(step, loss, samples=samples, lagged=lagged).lr(timeout_s=timeout_s)

    async def adapt(
        self,
        step: int,
        alignment: float,
        *,
        validation_loss: float | None = None,
        timeout_s: float | None = None,
    ) -> Adaptation:
        """Make the meta update of a step. See `mlrs_client.Run.adapt`."""
        pending = self.send_alignment(step, alignment, validation_loss=validation_loss)
        return await pending.adaptation(timeout_s=timeout_s)

    def send_alignment(
        self, step: int, alignment: float, *, validation_loss: float | None = None
    ) -> PendingAdaptation:
        """Send the meta update of a step and return at once; not to be awaited itself."""
        self._check_attached()
        self._connection.check()
        update = self._connection.session.adapt(self._ledger, *run_update(step, alignment, validation_loss))
        return PendingAdaptation(self._connection, self._ledger, update)

    async def finish(self, *, timeout_s: float | None = None) -> RunInfo | None:
        """Mark the run as finished. See `mlrs_client.Run.finish`."""
        self._check_attached()
        deadline = self._connection.deadline(timeout_s)
        try:
            info = await self._finished(deadline)
        except MlrsError as error:
            if not is_away(self._ledger, error):
                raise
            self._connection.keep_unsent(self._ledger, error)
            return None
        self._ledger.is_finished = True
        let_go(self._ledger)
        self._connection.session.forget(self._ledger)
        return info

    async def _finished(self, deadline: Deadline) -> RunInfo:
        session, ledger, lacks = self._connection.session, self._ledger, False
        await self._connection.wait(opened(session, ledger, deadline))
        while True:
            await self._connection.wait(settled(session, ledger, deadline, again=lacks))
            (call,) = calls.finishing(ledger.run_ids, ledger.next_step)
            try:
                (info,) = await self._connection.invoke(call, deadline.left_s(), session.home_of(ledger))
            except StepAheadError:  # of steps that were answered and not stored when a daemon went away
                if not ledger.backlog.has_volatile() or not deadline.left_s():
                    raise
                lacks = True
            except UnavailableError as error:
                await self._connection.wait(paused(ledger, deadline, error))
            else:
                check_complete(ledger, [info])
                return info

    def detach(self) -> None:
        """Leave the run without finishing it, as the end of an `async with` block does."""
        self._detached = True
        self._connection.session.forget(self._ledger)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()


class Pending(PendingView):
    """An observation that was sent; its advice is here or on its way. Awaited, it is the LR."""

    def __init__(
        self,
        connection: Connection,
        ledger: Ledger[Entry],
        entry: Entry,
        *,
        replayed: bool,
        lagged_lr: float | None = None,
    ) -> None:
        super().__init__(entry, replayed=replayed, lagged_lr=lagged_lr)
        self._connection = connection
        self._ledger = ledger

    async def lr(self, *, timeout_s: float | None = None) -> float:
        """Return the learning rate for the update of the step. See `mlrs_client.Pending.lr`."""
        if self._lagged_lr is not None:
            return self._lagged_lr
        await self._wait(timeout_s)
        return self._entry.lr()

    async def advice(self, *, timeout_s: float | None = None) -> Advice:
        """Return the advice. See `mlrs_client.Pending.advice`."""
        await self._wait(timeout_s)
        return self._result()

    async def _wait(self, timeout_s: float | None) -> None:
        self._connection.check_process()
        if not self._entry.done:
            deadline = self._connection.deadline_of(self._ledger, timeout_s)
            session = self._connection.session
            await self._connection.wait(answered(session, self._ledger, self._entry, deadline))

    def __await__(self) -> Generator[Any, None, float]:
        return self.lr().__await__()


class PendingAdaptation(PendingUpdateView):
    """A meta update that was sent. Awaited, it is what came of it."""

    def __init__(self, connection: Connection, ledger: Ledger[Any], update: Update) -> None:
        super().__init__(update)
        self._connection = connection
        self._ledger = ledger

    async def adaptation(self, *, timeout_s: float | None = None) -> Adaptation:
        """Return what came of it. See `mlrs_client.Run.adapt`."""
        await self._wait(timeout_s)
        (adaptation,) = self._update.adaptations()
        return adaptation

    async def _wait(self, timeout_s: float | None) -> None:
        self._connection.check_process()
        if not self._update.done:
            deadline = self._connection.deadline(timeout_s)
            session = self._connection.session
            await self._connection.wait(answered(session, self._ledger, self._update, deadline))

    def __await__(self) -> Generator[Any, None, Adaptation]:
        return self.adaptation().__await__()
