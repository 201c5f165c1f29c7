"""The meta updates that a client keeps, and those to send again after joining again.

The update of step t comes after the observation of t and before that of t + 1, in the daemon's record and in
the stream. It is durable once the run's `durable_step` is beyond t, and kept until then.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mlrs.errors import MlrsError
from mlrs.ledger.order import in_order
from mlrs.values.meta_types import Adaptation, MetaOutcome

MAX_UPDATES = 1024
"""The most meta updates of a message that the contract allows."""


@dataclass(slots=True, eq=False)
class Update:
    """The meta update of a step, of one run or of each run of a sweep, and its result."""

    step: int
    """Its step."""
    alignments: Sequence[float]
    """One for each run; NaN: the run has no update."""
    validation_losses: Sequence[float | None]
    """One for each run; `None`: there is none."""
    error: MlrsError | None = None
    """Why there is no result, if it was refused."""
    results: list[Adaptation | None] = field(init=False)
    """The result for each run; `None`: not answered yet."""
    unanswered: set[int] = field(init=False)
    """The indexes of the runs that the daemon has not answered yet."""

    def __post_init__(self) -> None:
        self.results = [_skipped(self.step) if math.isnan(number) else None for number in self.alignments]
        self.send_again()

    def send_again(self) -> None:
        """Count all of it as unanswered."""
        self.unanswered = set(self.indexes())

    def indexes(self) -> list[int]:
        """Return the indexes of the runs that have an update."""
        return [index for index, number in enumerate(self.alignments) if not math.isnan(number)]

    @property
    def done(self) -> bool:
        """Whether there is a result for each run, or a refusal."""
        return self.error is not None or None not in self.results

    def has(self, alignments: Sequence[float], validation_losses: Sequence[float | None]) -> bool:
        """Return whether it has these numbers; NaN equals NaN."""
        ours = (*self.alignments, *self.validation_losses)
        return all(map(_same, ours, (*alignments, *validation_losses)))

    def fill(self, index: int, answer: Adaptation) -> None:
        """Enter the result for one run, unless it has one."""
        self.unanswered.discard(index)
        if self.results[index] is None:
            self.results[index] = answer

    def stand_in(self, learning_rates: Sequence[float]) -> None:
        """Enter the advised learning rates, one for each run, which later results do not change."""
        for index, rate in enumerate(learning_rates):
            if self.results[index] is None:
                self.results[index] = Adaptation(
                    step=self.step,
                    applied=False,
                    updates=0,
                    learning_rate=rate,
                    outcome=MetaOutcome.FALLBACK,
                    log_change=0.0,
                )

    def adaptations(self) -> tuple[Adaptation, ...]:
        """Return the results of an update that is done, one for each run; raises its refusal."""
        if self.error is not None:
            raise self.error.with_traceback(None)
        return tuple(result for result in self.results if result is not None)


class Updates:
    """The meta updates of a ledger that are not durable yet, by step.

    After a long outage they may be a million, so operations that training waits for touch few of them.
    """

    def __init__(self) -> None:
        self._unanswered: dict[int, Update] = {}  # in order
        self._answered: OrderedDict[int, Update] = OrderedDict()  # for some runs at least

    def __bool__(self) -> bool:
        return bool(self._unanswered or self._answered)

    def __iter__(self) -> Iterator[Update]:
        return iter({**self._answered, **self._unanswered}.values())

    def find(self, step: int) -> Update | None:
        """Return the update of a step, if it is kept."""
        return self._unanswered.get(step) or self._answered.get(step)

    def has(self, update: Update) -> bool:
        """Return whether an update is kept."""
        return self.find(update.step) is update

    def enter(self, update: Update) -> None:
        """Keep an update."""
        self._unanswered[update.step] = update

    def drop(self, update: Update) -> None:
        """Drop an update."""
        if self.has(update):
            self._unanswered.pop(update.step, None)
            self._answered.pop(update.step, None)

    def unanswered(self) -> list[Update]:
        """Return the unanswered updates, in order."""
        return list(self._unanswered.values())

    def last_unanswered(self) -> Update | None:
        """Return the last unanswered update, if any."""
        return next(reversed(self._unanswered.values()), None)

    def from_step(self, step: int) -> list[Update]:
        """Return the updates of a step and of later ones."""
        return [update for update in self if update.step >= step]

    def answered(self, update: Update) -> None:
        """Enter that the daemon has answered an update, for one run at least."""
        if self.has(update):
            self._answered[update.step] = update
            if not update.unanswered:
                self._unanswered.pop(update.step, None)

    def lacks_from(self, expected: int) -> None:
        """Count the updates as unanswered that a daemon which expects a step may lack.

        It has every update before an observation that it has; the update of its last observation may lack.
        """
        lacked = {step: update for step, update in self._answered.items() if step >= expected - 1}
        for step, update in lacked.items():
            update.send_again()
            del self._answered[step]
        new = {step: update for step, update in lacked.items() if step not in self._unanswered}
        self._unanswered = in_order(new, self._unanswered)

    def let_go(self, step: int) -> None:
        """Drop answered updates of steps before a step, from the oldest on."""
        while self._answered:
            oldest = next(iter(self._answered.values()))
            if oldest.step >= step or oldest.unanswered:
                return
            del self._answered[oldest.step]

    def clear(self) -> None:
        """Drop all updates."""
        self._unanswered.clear()
        self._answered.clear()


def _skipped(step: int) -> Adaptation:
    return Adaptation(
        step=step, applied=False, updates=0, learning_rate=None, outcome=MetaOutcome.SKIPPED, log_change=0.0
    )


def _same(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and math.isnan(one) and math.isnan(other))
