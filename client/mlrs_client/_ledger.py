"""What the client knows of a run, or of a sweep: the next step, and what it may have to send again.

A ledger knows no stream and no thread; its owner sees to it that one caller is in it at a time. That caller
may be the main thread, where Ctrl-C raises between any two lines of Python: what users' calls do here
(`observe`, `adapt`, `stand_in`, `cut_off`) is so ordered that, broken off anywhere, it can be called again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from mlrs_client._answers import Advised
from mlrs_client._entries import Observed
from mlrs_client._exceptions import (
    ConfigMismatchError,
    DeadlineExceededError,
    LimitError,
    MlrsError,
    PermissionDeniedError,
    RecordDamagedError,
    RecordGapError,
    RunExistsError,
    RunNotFoundError,
    RunTakenError,
    StaleStepError,
    StepAheadError,
    StoreNewerError,
    UnauthenticatedError,
    UnavailableError,
    UsageError,
)
from mlrs_client._fallback import Fallback
from mlrs_client._meta_types import Adaptation, MetaOrder
from mlrs_client._opened import Opened
from mlrs_client._order import Outgoing, in_order
from mlrs_client._outage import Outage, Standstill
from mlrs_client._remarks import Remarks
from mlrs_client._start import Start
from mlrs_client._types import RunConfig
from mlrs_client._updates import Update, Updates

PERMANENT = (RecordDamagedError, StoreNewerError)
"""Failures that no further try cures: with a fallback, it goes on for good; without, they are raised."""
MAX_KEPT = 65_536
"""Observations kept, of all runs of a ledger. Beyond it the oldest steps are dropped, and a daemon that
crashes before it stored them cannot be caught up: for one run, hours of a daemon's absence."""
MAX_UNANSWERED = 2**20
"""Observations that may wait for an answer, of all runs of a ledger: those of a loop that never waits, while
the daemon is away."""
RANK_TIMEOUT_S = 600.0
"""How long a rank waits for the others: as long as the collectives of PyTorch do."""
LEAST_KEPT = 64
"""Steps kept, however many runs there are."""


class Wakeable(Protocol):
    """What the callers who wait for something of a run are waiting on."""

    def notify_all(self) -> None:
        """Let each of them look again."""


E = TypeVar("E", bound=Observed)


class Ledger(Generic[E]):
    """The client's record of one run, or of the runs of a sweep, which take their steps together.

    It begins before its runs are open: what is observed until then waits to be sent.

    Attributes:
        changed: notified when an answer, or word of the stream, came in.
        start: how the runs are to begin.
        run_ids: the runs' ids.
        label: what messages call it.
        config: the config of the first run: as asked for, and once it is open as the daemon resolved it.
        is_open: whether the daemon has opened the runs.
        first_step: the step with which they begin, once it is known.
        created: whether opening them created each run.
        handles: the runs' names in the streams of one daemon process.
        next_step: the step that the caller may observe next.
        durable_step: observations up to and including this one survive a crash; -1: none yet.
        left: whether the caller has left it.
        is_finished: whether it was found to be finished as it was to join again.
        fallback: what answers while no daemon can be reached; `None`: nothing.
        entry: makes what is kept of a step, from the step and the loss, or losses.
        starts_alone: whether the fallback answers even before the runs were opened.
        may_start_alone: whether an adapter may have it do so.
        fallback_steps: how many steps it has answered.
        outage: the outage that it is in, if any.
        updates: the meta updates that are not durable yet.
        remarks: what its user should hear of what is observed.
        saved_as: the file that holds what the daemon lacks, once there is one.
        saved_at: the step that came next when it was written.
        created_at: when the daemon created the first run, in seconds since the epoch; `None`: not known yet.
        rank: which of its ranks this process is; `None`: it has one.
        timeout_s: how long its callers wait that say nothing else, in seconds; `None`: as all others.
    """

    def __init__(
        self,
        start: Start,
        changed: Wakeable,
        entry: Callable[[int, Any], E],
        fallback: Fallback | None = None,
        rank: int | None = None,
    ) -> None:
        self.rank = rank
        self.timeout_s = None if rank is None else RANK_TIMEOUT_S
        self.changed = changed
        self.start = start
        self.run_ids = start.run_ids
        self.label = _label(start.run_ids)
        self.config: RunConfig = start.configs[0]
        self.is_open = False
        self.first_step = start.resume_from
        self.created = False
        self.handles: list[int] = []
        self.next_step = start.resume_from or 0
        self.durable_step = -1
        self.left = False
        self.is_finished = False
        self.fallback = fallback
        self.starts_alone = False
        self.may_start_alone = False
        self.entry = entry
        self.fallback_steps = 0
        self.outage: Outage | None = None
        self.updates = Updates()
        self.remarks = Remarks(self.label, start.run_ids, start.configs)
        self.saved_as = ""
        self.saved_at = -1
        self.created_at: float | None = None
        self._standstill = Standstill(self.label)
        self._last_lr: Any = None
        self._last_step = -1  # what it was advised for
        self._owed: MlrsError | None = None  # a refusal of a step that the fallback had answered
        self._is_replaced = False  # then what is owed is raised again and again
        self._denied: MlrsError | None = None  # why the runs could not be opened
        self._keeps_losses = False  # of a run that is lost
        self._furthest = -1
        self._most_unanswered = max(MAX_UNANSWERED // len(start.run_ids), LEAST_KEPT)
        self._most = max(MAX_KEPT // len(start.run_ids), LEAST_KEPT)
        self._kept: deque[E] = deque()  # without gaps, the last one at next_step - 1
        self._unanswered: dict[int, E] = {}  # in the order sent
        self._outgoing: Outgoing[E | Update] = Outgoing()
        self._lacked_from = 0  # what the daemon expected when the run joined last

    @property
    def size(self) -> int:
        """The number of runs."""
        return len(self.run_ids)

    def patience_s(self, timeout_s: float | None) -> float | None:
        """Return how long a caller waits that asks for so long; `None`: as all callers of the advisor do."""
        if timeout_s is not None:
            return timeout_s
        if not self.is_open:
            return max(self.start.limit_s(self.first_step), self.timeout_s or 0.0)
        return self.timeout_s

    def observe(self, step: int, loss: Any) -> tuple[E, bool]:
        """Enter an observation: of a step and its loss, or one loss for each run.

        Returns:
            The entry, and whether it has to be sent: not if it was entered before and is kept.

        Raises:
            StepAheadError: the step is beyond the next one.
            StaleStepError: the step was observed before, with another loss.
            LimitError: too many steps wait for an answer.
            MlrsError: the runs could not be opened, and the step is not the one that they begin with.
        """
        self._tell_owed()
        if self.first_step is None:
            self._begin(step)
        if step > self.next_step:
            raise self._ahead(step)
        if step < self.next_step and (entry := self._find(step)):
            if not entry.has(loss):
                raise StaleStepError(
                    f"{self.label}: step {step} was observed with another loss than {loss!r};"
                    f" the next step is {self.next_step}. To go back, open it with resume_from={step}",
                    expected_step=self.next_step,
                )
            return entry, False
        if len(self._unanswered) >= self._most_unanswered and not self.is_lost:
            self._overflow()
        entry = self.entry(step, loss)
        self.remarks.see(entry)
        if not self.is_lost:
            self._outgoing.enter(entry)  # first, and passed over unless the next line was reached, too
            self._unanswered[step] = entry
            if step == self.next_step:
                self._keep(entry)
        elif self._keeps_losses and step == self.next_step:
            self._keep(entry)
        self.next_step = max(self.next_step, step + 1)
        if len(self._kept) > self._most:
            self._kept.popleft()
            self.updates.let_go(self._kept[0].step - 1)
        return entry, True

    def adapt(
        self, step: int, alignments: Sequence[float], validation_losses: Sequence[float | None]
    ) -> tuple[Update, bool]:
        """Enter the meta update of a step, from a number for each run.

        Returns:
            The update, and whether it has to be sent: not if it was entered before and is kept.

        Raises:
            ConfigMismatchError: the runs are not in meta mode.
            StepAheadError: the step was not observed yet.
            StaleStepError: the step after it was, or it was adapted to before, with another number.
        """
        self._tell_owed()
        if self.config.meta is None:
            raise ConfigMismatchError(
                f"{self.label} is not in meta mode, which a run is from its creation on: open a new one with"
                " meta=True",
                field="meta",
            )
        if step >= self.next_step:
            raise StepAheadError(
                f"{self.label}: step {step} was not observed yet; observe it, then adapt to it",
                expected_step=self.next_step,
            )
        if (update := self.updates.find(step)) is not None:
            if not update.has(alignments, validation_losses):
                raise StaleStepError(
                    f"{self.label}: the meta update of step {step} was made of another alignment or"
                    " validation loss; there is one a step",
                    expected_step=self.next_step,
                )
            return update, False
        if step >= self.durable_step and self._kept and self._kept[0].step - 1 <= step < self.next_step - 1:
            raise StaleStepError(
                f"{self.label}: step {step + 1} was observed already, and the meta update of step {step}"
                " belongs before it; adapt to each step before the next is observed",
                expected_step=self.next_step,
            )
        update = Update(step, alignments, validation_losses)
        if not self.is_lost and update.owed:
            self._outgoing.enter(update)  # first, and passed over unless the next line was reached, too
            self.updates.enter(update)
        return update, True

    def take_unsent(self, limit: int) -> list[E | Update]:
        """Return what is to be sent next, in order, and count it as sent: entries or updates, not both.

        `limit` is how many they may be. None are left once there are none.
        """
        items: list[E | Update] = []
        while len(items) < limit and (item := self._outgoing.first()) is not None:
            if self._is_due(item):
                if items and isinstance(item, Update) is not isinstance(items[0], Update):
                    break
                items.append(item)
            self._outgoing.pass_on()
        return items

    def _is_due(self, item: E | Update) -> bool:
        """Return whether an item was entered wholly, and not refused since, and the daemon may lack it.

        It may lack what has its answer: one that came late, of a daemon that lost it.
        """
        if isinstance(item, Update):
            return self.updates.has(item) and (bool(item.owed) or item.step >= self._lacked_from - 1)
        if self._unanswered.get(item.step) is item:
            return True
        return item.step >= self._lacked_from and self._find(item.step) is item

    def _is_kept(self, item: E | Update) -> bool:
        """Return whether an item may have to be sent again."""
        if isinstance(item, Update):
            return self.updates.has(item)
        return self._find(item.step) is item or self._unanswered.get(item.step) is item

    def answer(self, entry: E, columns: Advised, place: int) -> None:
        """Enter the answer to an entry, at a place in columns; a second one changes nothing."""
        if self._unanswered.get(entry.step) is entry:
            del self._unanswered[entry.step]
        learning_rate = entry.fill(columns, place)
        if entry.step >= self._last_step:
            self._last_step, self._last_lr = entry.step, learning_rate
        self.durable_step = max(self.durable_step, entry.durable_step(columns, place))
        while self._kept and self._kept[0].step <= self.durable_step and self._kept[0].done:
            self._kept.popleft()
        self.updates.let_go(self.durable_step)
        self._outgoing.let_go(self._is_kept)

    def adapted(self, update: Update, place: int, answer: Adaptation) -> None:
        """Enter the answer to the update of one run; a second one changes nothing."""
        update.fill(place, answer)
        self.updates.told(update)
        is_used = self.config.meta is not None and self.config.meta.order == MetaOrder.BEFORE_STEP
        if is_used and not update.owed and update.step >= self._last_step:
            advised = _spread(self._last_lr, self.size)
            rates = [
                rate if result is None or result.learning_rate is None else result.learning_rate
                for result, rate in zip(update.results, advised, strict=True)
            ]
            self._last_step, self._last_lr = update.step, rates[0] if self.size == 1 else rates

    def refuse_update(self, update: Update, error: MlrsError) -> None:
        """Enter that an update was refused: the run goes on without it."""
        if not self.updates.has(update):
            return
        if update.done:
            self._owed = error  # as for an observation that the fallback has answered
        else:
            update.error = error
        self.updates.drop(update)

    def refuse(self, entry: E, error: MlrsError) -> None:
        """Enter that an entry was refused: its step comes next again, and later ones fall with it."""
        if self._unanswered.get(entry.step) is not entry:
            return
        if isinstance(error, PERMANENT) and self.can_stand_in():
            self.lose(error)
            return
        self._fail(entry, error)
        for update in self.updates.from_step(entry.step):
            self.refuse_update(update, error)
        if not self._kept or not self._kept[0].step <= entry.step < self.next_step:
            return
        while self._kept and self._kept[-1].step >= entry.step:
            self._fail(self._kept.pop(), error)
        self.next_step = entry.step

    def refuse_all(self, error: MlrsError) -> None:
        """Enter that everything which has no answer was refused."""
        if isinstance(error, PERMANENT) and self.can_stand_in():
            self.lose(error)
            return
        for entry in list(self._unanswered.values()):
            self.refuse(entry, error)
        for update in self.updates.unanswered():
            self.refuse_update(update, error)

    def _begin(self, step: int) -> None:
        """Enter the step with which the runs begin.

        Raises:
            InvalidArgumentError: they cannot begin with it.
        """
        if not self.is_open:
            self.start.way(step)
            self.next_step = step
        self.first_step = step

    def _ahead(self, step: int) -> MlrsError:
        """Return why a step cannot be observed that is beyond the next one."""
        if self._denied is not None:
            return self._denied.with_traceback(None)
        return StepAheadError(
            f"{self.label}: step {step} is ahead; the next step is {self.next_step}, and steps have no gaps",
            expected_step=self.next_step,
        )

    def open(self, opened: Opened) -> None:
        """Take in what the daemon says of the runs that it opened.

        Raises:
            RecordGapError: as `rejoin`.
        """
        if self._began_elsewhere(opened):
            return
        self.is_open, self.created, self._denied = True, opened.created, None
        self.created_at = opened.created_at
        self._furthest = opened.furthest_step
        advised = _last_lr(opened)
        self._last_lr = self._last_lr if advised is None else advised
        if self.first_step is None or opened.next_step > self.next_step:
            self._kept.clear()  # the daemon answers it from its record
            self.next_step = opened.next_step
        elif opened.next_step < self.first_step:
            first, self.next_step = self.first_step, opened.next_step
            self.refuse_all(self._ahead(first))
            self.next_step = opened.next_step
        self.rejoin(opened)

    def _began_elsewhere(self, opened: Opened) -> bool:
        """Lose runs that began under the fallback, with another step than they turn out to be at."""
        if self.outage is None or self.first_step in (None, opened.next_step):
            return False
        self.lose(
            RunExistsError(
                f"it is at step {opened.next_step}, and this training began with step {self.first_step},"
                " while no daemon could be asked"
            )
        )
        return True

    @property
    def denied(self) -> MlrsError | None:
        """Why the runs could not be opened when that was tried last, if they could not."""
        return self._denied

    def ask_again(self) -> None:
        """Enter that opening the runs is to be tried again."""
        self._denied = None

    def stored(self, durable_step: int) -> bool:
        """Take in how far a daemon has stored the runs that it answered; return whether that is all."""
        self.durable_step = max(self.durable_step, durable_step)
        while self._kept and self._kept[0].step <= self.durable_step and self._kept[0].done:
            self._kept.popleft()
        self.updates.let_go(self.durable_step)
        return self.durable_step >= self.next_step - 1

    def turned_away(self, error: MlrsError) -> None:
        """Enter that the runs cannot take part in a stream, now or ever."""
        if self.goes_on_alone() and (
            not self.is_open or isinstance(error, (RunTakenError, RunNotFoundError))
        ):
            self.lose(error)
            return
        if not self.is_open:
            self._denied = error
        self.refuse_all(error)

    def rejoin(self, opened: Opened) -> None:
        """Take in what the daemon says after a break.

        To be sent again, in the order in which they were entered, are then the entries and updates that it
        lacks, and those whose answers were lost.

        Raises:
            RecordGapError: the daemon's record goes beyond the client's, or ends before what the
                client keeps.
        """
        expected, furthest = opened.next_step, opened.furthest_step
        oldest = min(
            [self.next_step, *(kept.step for kept in islice(self._kept, 1)), *islice(self._unanswered, 1)]
        )
        if furthest > max(self.next_step, self._furthest) and self.rank is None:  # ranks go on without others
            raise RecordGapError(
                f"{self.label}: the daemon expects step {furthest}, this client step"
                f" {self.next_step}: another process has moved it. Open it again",
                expected_step=furthest,
            )
        if expected < oldest:
            gap = RecordGapError(
                f"{self.label}: the daemon expects step {expected}, and this client keeps losses"
                f" from step {oldest} on only. Go on from a checkpoint of step {expected} or before:"
                " open it with resume_from= its step",
                expected_step=expected,
            )
            if not self.can_stand_in():
                raise gap
            self.lose(gap)
            return
        self.handles, self.config = opened.handles, opened.config
        self.remarks.resolved([opened.config])
        self.durable_step = opened.durable_step
        self._lacked_from = expected
        lacked = [kept for kept in self._kept if kept.step >= expected and kept.step not in self._unanswered]
        self._unanswered = in_order({entry.step: entry for entry in lacked}, self._unanswered)
        self.updates.owe_again(expected)
        self._outgoing.again()
        if self.outage is not None and (last := self.last_unanswered()) is not None:
            self.outage.until = last.step

    def last_unanswered(self) -> E | Update | None:
        """Return the last entry or update that the daemon still has to answer, if any."""
        entry = next(reversed(self._unanswered.values()), None)
        update = self.updates.last_unanswered()
        return entry if update is None or (entry is not None and entry.step > update.step) else update

    def has_volatile(self) -> bool:
        """Return whether the client keeps what a crash of the daemon would lose."""
        return bool(self._kept) or bool(self.updates)

    def replaced(self) -> None:
        """Enter that the same runs were opened again in this process: what is observed here is refused."""
        self._owed = UsageError(
            f"{self.label} was opened again in this process, which goes on with it there; use that run, or"
            " open this one again"
        )
        self._is_replaced = True
        self.refuse_all(self._owed)
        self.drop()

    def hand_over(self, other: Ledger[E], step: int) -> None:
        """Give the same runs, which go back to a step, the observations and updates of before that step."""
        updates = {update.step: update for update in self.updates}
        for entry in self.unsent():
            if entry.step < step:
                other.observe(entry.step, entry.observed())
                if (update := updates.get(entry.step)) is not None and entry.step < step - 1:
                    other.adapt(update.step, update.alignments, update.validation_losses)

    def drop(self) -> None:
        """Send and keep nothing more of what was observed here."""
        self._outgoing.clear()
        self._unanswered.clear()
        self._kept.clear()
        self.updates.clear()

    def unsent(self) -> list[E]:
        """Return the observations that the daemon may lack, in order and without gaps up to the last.

        Of a rank there are none: what it alone observed is no observation of the run.
        """
        if self.rank is not None:
            return []
        entries = {entry.step: entry for entry in self._kept} | self._unanswered
        found: list[E] = []
        for step in range(self.next_step - 1, -1, -1):
            if step not in entries:
                break
            found.append(entries[step])
        return found[::-1]

    def store_news(self) -> str | None:
        """Return what is to be logged of whether the daemon stores what it answers; once each."""
        return self._standstill.news(self.durable_step, self._last_step)

    # ----------------------------------------------------------------------- without a daemon

    @property
    def is_lost(self) -> bool:
        """Whether the daemon cannot be told any more what it missed: the fallback goes on for good."""
        return self.outage is not None and self.outage.lost is not None

    def can_stand_in(self) -> bool:
        """Return whether the fallback, if there is one, has something to answer."""
        return (
            self.fallback is not None
            and (self.is_open or self.starts_alone)
            and (self.fallback.rate is not None or self._last_lr is not None)
        )

    def goes_on_alone(self) -> bool:
        """Return whether training goes on under the fallback, whatever becomes of the runs."""
        return self.can_stand_in() and (self.is_open or self.outage is not None)

    def may_pass(self, error: MlrsError) -> bool:
        """Return whether to try again after a failure to join that says nothing against what was sent.

        Of one that somebody has to see to, a token that is no good, only where training goes on meanwhile.
        Where the runs are opened for the first time, and their caller waits for that, only if no daemon
        answered.
        """
        if self.goes_on_alone() or isinstance(error, (UnavailableError, DeadlineExceededError)):
            return True
        return self.is_open and not isinstance(error, (UnauthenticatedError, PermissionDeniedError))

    @property
    def last_lr(self) -> float | None:
        """The last advice; before there is any, what the fallback begins with."""
        rate: float | None = self._last_lr
        return rate

    def start_alone(self, learning_rate: float | None) -> None:
        """Have the fallback answer even before the runs are open; from this rate on if there is no other."""
        self.starts_alone = True
        if self._last_lr is None:
            self._last_lr = learning_rate

    def stand_in(self, entry: E | Update) -> None:
        """Have the fallback answer an entry or an update, which stays to be sent.

        Raises:
            InvalidArgumentError: what the fallback gives is no learning rate.
        """
        if entry.done or self.fallback is None:
            return
        if isinstance(entry, Update):
            entry.stand_in(self._advised(entry.step))
            return
        entry.stand_in(self.fallback.lr(entry.step, self._last_lr), self.durable_step)
        self.fallback_steps += 1

    def cut_off(self, cause: MlrsError) -> None:
        """Enter that an answer did not come in time: the fallback answers until the daemon has caught up."""
        if self.outage is None:
            self.outage = self._outage(cause)

    def _outage(self, cause: MlrsError) -> Outage:
        last = self.last_unanswered()
        until = self.next_step if last is None else last.step
        return Outage(self.label, cause, until, self.fallback_steps)

    def is_back(self, entry: E | Update) -> bool:
        """Return whether the answer to an entry, or to an update, ends the outage."""
        outage = self.outage
        return outage is not None and outage.lost is None and entry.step >= outage.until

    def lose(self, error: MlrsError) -> None:
        """Enter that the daemon cannot be caught up: from here on nothing is sent, the fallback answers.

        Where the daemon refuses the run, but lacks nothing that this client no longer has, losses are kept.
        """
        self.outage = self.outage or self._outage(error)
        self.outage.lost = error
        self._keeps_losses = not self.is_open or isinstance(error, (RunTakenError, RunNotFoundError))
        if self._keeps_losses:
            self._kept, self._most = deque(self.unsent()), self._most_unanswered
            self.outage.keeps_losses = True
        else:
            self._kept.clear()
            self.updates.clear()
        self._outgoing.clear()
        self._unanswered.clear()

    def _advised(self, step: int) -> list[float]:
        """Return what the training loop uses for a step, for each run, while its update is not answered."""
        entry = self._find(step)
        if entry is not None:
            self.stand_in(entry)
            if entry.rates is not None:
                return list(entry.rates)
        known = None if self.fallback is None else self.fallback.lr(step, self._last_lr)
        return _spread(known if self._last_lr is None else self._last_lr, self.size)

    def _tell_owed(self) -> None:
        if self._owed is not None:
            owed = self._owed
            if not self._is_replaced:
                self._owed = None
            raise owed.with_traceback(None)

    def _overflow(self) -> None:
        error = LimitError(
            f"{self.label}: {len(self._unanswered)} steps have no answer, the most that are kept; the"
            f" daemon, at step {next(iter(self._unanswered))}, has been away for too long. To have its advice"
            " again, go on from a checkpoint of that step or before: open it with resume_from= its step"
        )
        if not self.can_stand_in():
            raise error
        self.lose(error)

    def _fail(self, entry: E, error: MlrsError) -> None:
        if entry.done and entry.error is None and entry.step in self._unanswered:
            self._owed = error  # the fallback has answered it: the caller hears of this at the next step
        elif not entry.done:
            entry.error = error
        self._unanswered.pop(entry.step, None)

    def _keep(self, entry: E) -> None:
        if self._kept and self._kept[-1].step == entry.step:  # half entered when an interrupt came
            self._kept.pop()
        self._kept.append(entry)

    def _find(self, step: int) -> E | None:
        if self._kept and step >= self._kept[0].step:
            place = step - self._kept[0].step
            return self._kept[place] if place < len(self._kept) else None
        return self._unanswered.get(step)


def _last_lr(opened: Opened) -> Any:
    rates = opened.last_learning_rates
    if any(rate is None for rate in rates):
        return None
    return rates[0] if len(rates) == 1 else rates


def _spread(rate: Any, size: int) -> list[Any]:
    """Return a learning rate for each run, of one for all or one for each."""
    rates = rate.tolist() if hasattr(rate, "tolist") else rate
    return list(rates) if isinstance(rates, (list, tuple)) else [rates] * size


def _label(run_ids: Sequence[str]) -> str:
    if len(run_ids) == 1:
        return f"run {run_ids[0]!r}"
    return f"the sweep of {len(run_ids)} runs from {run_ids[0]!r} on"
