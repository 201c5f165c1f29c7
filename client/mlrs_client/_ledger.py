"""What the client knows of a run, or of a sweep: the next step, and what it may have to send again.

A ledger knows no stream and no thread; its owner sees to it that one caller is in it at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from mlrs_client._calls import Opened
from mlrs_client._convert import reason_from_proto
from mlrs_client._exceptions import LimitError, MlrsError, RecordGapError, StaleStepError, StepAheadError
from mlrs_client._types import Advice, AdviceReason, RunConfig

MAX_KEPT = 65_536
"""Observations kept, of all runs of a ledger. Beyond it the oldest steps are dropped, and a daemon that
crashes before it stored them cannot be caught up: for one run, hours of a daemon's absence."""
MAX_UNANSWERED = 2**20
"""Observations that may wait for an answer, of all runs of a ledger: those of a loop that never waits, while
the daemon is away."""
LEAST_KEPT = 64
"""Steps kept, however many runs there are."""


class Columns(Protocol):
    """Answers in columns, as a stream brings them."""

    @property
    def learning_rates(self) -> Sequence[float]:
        """Learning rates."""

    @property
    def durable_steps(self) -> Sequence[int]:
        """How far the runs are durable."""

    @property
    def reasons(self) -> Sequence[Any]:
        """Reasons, as the contract numbers them; empty: all are fresh."""


class Observed(Protocol):
    """What a ledger keeps of a step: an `Entry` of one run, or a `Row` of a sweep."""

    step: int
    """The step."""
    error: MlrsError | None
    """Why there will be no answer, if there will be none."""

    @property
    def done(self) -> bool:
        """Whether there is an answer, or never will be."""

    @property
    def steps(self) -> Sequence[int]:
        """The step, once for each run."""

    @property
    def losses(self) -> Sequence[float]:
        """The losses, one for each run."""

    def has(self, loss: Any) -> bool:
        """Return whether it is of this loss, or these; NaN is the same as NaN."""

    def fill(self, columns: Columns, place: int) -> None:
        """Take the answer, which begins at a place in the columns."""

    def durable_step(self, columns: Columns, place: int) -> int:
        """Return how far all runs are durable by such an answer."""


@dataclass(slots=True, eq=False)
class Entry:
    """One observation of one run, and what came of it."""

    step: int
    """Its step."""
    loss: float
    """Its loss."""
    learning_rate: float | None = None
    """The answer, once there is one ..."""
    reason: AdviceReason = AdviceReason.FRESH
    """... why it is what it is ..."""
    durable: int = -1
    """... and how far the run was durable then."""
    error: MlrsError | None = None
    """Why there will be no answer."""

    @property
    def done(self) -> bool:
        """Whether there is an answer, or never will be."""
        return self.learning_rate is not None or self.error is not None

    @property
    def steps(self) -> Sequence[int]:
        """The step."""
        return (self.step,)

    @property
    def losses(self) -> Sequence[float]:
        """The loss."""
        return (self.loss,)

    def has(self, loss: float) -> bool:
        """Return whether it is of this loss."""
        return self.loss == loss or (self.loss != self.loss and loss != loss)  # noqa: PLR0124 # NaN is NaN

    def fill(self, columns: Columns, place: int) -> None:
        """Take the answer at a place in the columns."""
        self.learning_rate = columns.learning_rates[place]
        self.durable = columns.durable_steps[place]
        if columns.reasons:
            self.reason = reason_from_proto(columns.reasons[place])

    def durable_step(self, columns: Columns, place: int) -> int:
        """Return how far the run is durable by such an answer."""
        return columns.durable_steps[place]

    def lr(self) -> float:
        """Return the learning rate of an entry that is done.

        Raises:
            MlrsError: there is none; the error says why.
        """
        if self.error is not None:
            raise self.error.with_traceback(None)
        if self.learning_rate is None:
            raise AssertionError("asked before it was done")
        return self.learning_rate

    def result(self) -> Advice:
        """Return the advice of an entry that is done; raises as `lr`."""
        return Advice(self.step, self.lr(), self.reason, self.durable)


class Wakeable(Protocol):
    """What the callers who wait for something of a run are waiting on."""

    def notify_all(self) -> None:
        """Let each of them look again."""


E = TypeVar("E", bound=Observed)


class Ledger(Generic[E]):
    """The client's record of one run, or of the runs of a sweep, which take their steps together.

    Attributes:
        changed: notified when an answer, or word of the stream, came in.
        run_ids: the runs' ids.
        label: what messages call it.
        config: the config of the first run, as the daemon resolved it.
        given: the names of the config's fields that the caller gave.
        created: whether opening it created each run.
        handles: the runs' names in the streams of one daemon process.
        next_step: the step that the caller may observe next.
        durable_step: observations up to and including this one survive a crash; -1: none yet.
        left: whether the caller has left it.
    """

    def __init__(
        self,
        opened: Opened,
        changed: Wakeable,
        entry: Callable[[int, Any], E],
        given: frozenset[str] = frozenset(),
    ) -> None:
        """`entry` makes what is kept of a step, from the step and the loss, or losses."""
        self.changed = changed
        self.run_ids = opened.run_ids
        self.label = _label(opened.run_ids)
        self.config: RunConfig = opened.config
        self.given = given
        self.created = opened.created
        self.handles = opened.handles
        self.next_step = opened.next_step
        self.durable_step = opened.durable_step
        self.left = False
        self._entry = entry
        self._furthest = opened.furthest_step
        self._most_unanswered = max(MAX_UNANSWERED // len(opened.run_ids), LEAST_KEPT)
        self._most = max(MAX_KEPT // len(opened.run_ids), LEAST_KEPT)
        self._kept: deque[E] = deque()  # without gaps, the last one at next_step - 1
        self._unanswered: dict[int, E] = {}  # in the order sent

    @property
    def size(self) -> int:
        """The number of runs."""
        return len(self.run_ids)

    def observe(self, step: int, loss: Any) -> tuple[E, bool]:
        """Enter an observation: of a step and its loss, or one loss for each run.

        Returns:
            The entry, and whether it has to be sent: not if it was entered before and is kept.

        Raises:
            StepAheadError: the step is beyond the next one.
            StaleStepError: the step was observed before, with another loss.
            LimitError: too many steps wait for an answer.
        """
        if step > self.next_step:
            raise StepAheadError(
                f"{self.label}: step {step} is ahead; the next step is {self.next_step}, and steps"
                " have no gaps",
                expected_step=self.next_step,
            )
        if step < self.next_step and (entry := self._find(step)):
            if not entry.has(loss):
                raise StaleStepError(
                    f"{self.label}: step {step} was observed with another loss than {loss!r};"
                    f" the next step is {self.next_step}. To go back, open it with resume_from={step}",
                    expected_step=self.next_step,
                )
            return entry, False
        if len(self._unanswered) >= self._most_unanswered:
            raise LimitError(
                f"{self.label}: {len(self._unanswered)} steps have no answer, the most that are kept; the"
                " daemon has been away for too long. Wait for it, or go on with a schedule of your own"
            )
        entry = self._entry(step, loss)
        self._unanswered[step] = entry
        if step == self.next_step:
            if self._kept and self._kept[-1].step == step:  # half entered when an interrupt came
                self._kept.pop()
            self._kept.append(entry)
            self.next_step = step + 1
            if len(self._kept) > self._most:
                self._kept.popleft()
        return entry, True

    def answer(self, entry: E, columns: Columns, place: int) -> None:
        """Enter the answer to an entry, at a place in columns; a second one changes nothing."""
        if self._unanswered.get(entry.step) is entry:
            del self._unanswered[entry.step]
        if not entry.done:
            entry.fill(columns, place)
        self.durable_step = max(self.durable_step, entry.durable_step(columns, place))
        while self._kept and self._kept[0].step <= self.durable_step and self._kept[0].done:
            self._kept.popleft()

    def refuse(self, entry: E, error: MlrsError) -> None:
        """Enter that an entry was refused: its step comes next again, and later ones fall with it."""
        if self._unanswered.get(entry.step) is not entry:
            return
        self._fail(entry, error)
        if not self._kept or not self._kept[0].step <= entry.step < self.next_step:
            return
        while self._kept and self._kept[-1].step >= entry.step:
            self._fail(self._kept.pop(), error)
        self.next_step = entry.step

    def refuse_all(self, error: MlrsError) -> None:
        """Enter that everything which has no answer was refused."""
        for entry in list(self._unanswered.values()):
            self.refuse(entry, error)

    def rejoin(self, opened: Opened) -> list[E]:
        """Take in what the daemon says after a break.

        Returns:
            The entries to send again, in the order of their steps: those that the daemon lacks, and
            those whose answers were lost.

        Raises:
            RecordGapError: the daemon's record goes beyond the client's, or ends before what the
                client keeps.
        """
        expected, furthest = opened.next_step, opened.furthest_step
        oldest = min(
            [self.next_step, *(kept.step for kept in islice(self._kept, 1)), *islice(self._unanswered, 1)]
        )
        if furthest > max(self.next_step, self._furthest):
            raise RecordGapError(
                f"{self.label}: the daemon expects step {furthest}, this client step"
                f" {self.next_step}: another process has moved it. Open it again",
                expected_step=furthest,
            )
        if expected < oldest:
            raise RecordGapError(
                f"{self.label}: the daemon expects step {expected}, and this client keeps losses"
                f" from step {oldest} on only. Go on from a checkpoint of step {expected} or before:"
                " open it with resume_from= its step",
                expected_step=expected,
            )
        self.handles, self.config = opened.handles, opened.config
        self.durable_step = opened.durable_step
        again = {entry.step: entry for entry in self._kept if entry.step >= expected}
        self._unanswered = dict(sorted((self._unanswered | again).items()))
        return list(self._unanswered.values())

    def unanswered(self, step: int) -> E | None:
        """Return the entry of a step, if the daemon still has to answer it."""
        return self._unanswered.get(step)

    def last_unanswered(self) -> E | None:
        """Return the last entry that the daemon still has to answer, if any."""
        return next(reversed(self._unanswered.values()), None)

    def has_volatile(self) -> bool:
        """Return whether the client keeps observations that a crash of the daemon would lose."""
        return bool(self._kept)

    def _fail(self, entry: E, error: MlrsError) -> None:
        if not entry.done:
            entry.error = error
        self._unanswered.pop(entry.step, None)

    def _find(self, step: int) -> E | None:
        if self._kept and step >= self._kept[0].step:
            return self._kept[step - self._kept[0].step]
        return self._unanswered.get(step)


def _label(run_ids: Sequence[str]) -> str:
    if len(run_ids) == 1:
        return f"run {run_ids[0]!r}"
    return f"the sweep of {len(run_ids)} runs from {run_ids[0]!r} on"
