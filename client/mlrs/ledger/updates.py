"""Meta updates: what a client keeps of them, and what is lacking after a break.

The update of step t belongs behind the observation of t and ahead of that of t + 1, in the daemon's record
and so on the way there. It is durable once the run's `durable_step` is beyond t, and kept until then.
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
    """The meta update of a step, of one run or of each run of a sweep, and what came of it."""

    step: int
    """Its step."""
    alignments: Sequence[float]
    """One for each run; NaN: that run has none."""
    validation_losses: Sequence[float | None]
    """One for each run; `None`: there is none."""
    error: MlrsError | None = None
    """Why there will be no answer, if there will be none."""
    results: list[Adaptation | None] = field(init=False)
    """The answer for each run, once there is one."""
    unanswered: set[int] = field(init=False)
    """The indexes of the runs that the daemon has not answered yet."""

    def __post_init__(self) -> None:
        self.results = [_skipped(self.step) if math.isnan(number) else None for number in self.alignments]
        self.send_again()

    def send_again(self) -> None:
        """Have the daemon answer all of it, again if it did before."""
        self.unanswered = set(self.indexes())

    def indexes(self) -> list[int]:
        """Return the indexes of the runs that have an update."""
        return [index for index, number in enumerate(self.alignments) if not math.isnan(number)]

    @property
    def done(self) -> bool:
        """Whether there is an answer, or never will be."""
        return self.error is not None or None not in self.results

    def has(self, alignments: Sequence[float], validation_losses: Sequence[float | None]) -> bool:
        """Return whether it is of these numbers; NaN is the same as NaN."""
        ours = (*self.alignments, *self.validation_losses)
        return all(map(_same, ours, (*alignments, *validation_losses)))

    def fill(self, index: int, answer: Adaptation) -> None:
        """Take the answer for one run, unless it has one."""
        self.unanswered.discard(index)
        if self.results[index] is None:
            self.results[index] = answer

    def stand_in(self, learning_rates: Sequence[float]) -> None:
        """Take the learning rates that were advised, one a run; what the daemon says will not change it."""
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
        """Return the answers of an update that is done, one a run."""
        if self.error is not None:
            raise self.error.with_traceback(None)
        return tuple(result for result in self.results if result is not None)


class Updates:
    """The meta updates of a ledger that are not durable yet, by step.

    After a long outage they may be a million, so that what training waits for goes through few of them.
    """

    def __init__(self) -> None:
        self._unanswered: dict[int, Update] = {}  # those that the daemon still has to answer, in order
        self._answered: OrderedDict[int, Update] = OrderedDict()  # by it, for some runs at least

    def __bool__(self) -> bool:
        return bool(self._unanswered or self._answered)

    def __iter__(self) -> Iterator[Update]:
        return iter({**self._answered, **self._unanswered}.values())

    def find(self, step: int) -> Update | None:
        """Return that of a step, if it is kept."""
        return self._unanswered.get(step) or self._answered.get(step)

    def has(self, update: Update) -> bool:
        """Return whether it is kept."""
        return self.find(update.step) is update

    def enter(self, update: Update) -> None:
        """Keep one."""
        self._unanswered[update.step] = update

    def drop(self, update: Update) -> None:
        """Keep it no longer."""
        if self.has(update):
            self._unanswered.pop(update.step, None)
            self._answered.pop(update.step, None)

    def unanswered(self) -> list[Update]:
        """Return those that the daemon still has to answer, in order."""
        return list(self._unanswered.values())

    def last_unanswered(self) -> Update | None:
        """Return the last of them, if there are any."""
        return next(reversed(self._unanswered.values()), None)

    def from_step(self, step: int) -> list[Update]:
        """Return those of a step and later ones."""
        return [update for update in self if update.step >= step]

    def answered(self, update: Update) -> None:
        """Enter that the daemon has answered one, for a run at least."""
        if self.has(update):
            self._answered[update.step] = update
            if not update.unanswered:
                self._unanswered.pop(update.step, None)

    def lacks_from(self, expected: int) -> None:
        """Have a daemon that expects a step answer again what it may lack.

        It has those ahead of an observation that it has. Of its last observation it need not.
        """
        lacked = {step: update for step, update in self._answered.items() if step >= expected - 1}
        for step, update in lacked.items():
            update.send_again()
            del self._answered[step]
        new = {step: update for step, update in lacked.items() if step not in self._unanswered}
        self._unanswered = in_order(new, self._unanswered)

    def let_go(self, step: int) -> None:
        """Keep those no longer that belong ahead of a step and are answered, from the oldest on."""
        while self._answered:
            oldest = next(iter(self._answered.values()))
            if oldest.step >= step or oldest.unanswered:
                return
            del self._answered[oldest.step]

    def clear(self) -> None:
        """Keep none."""
        self._unanswered.clear()
        self._answered.clear()


def _skipped(step: int) -> Adaptation:
    return Adaptation(
        step=step, applied=False, updates=0, learning_rate=None, outcome=MetaOutcome.SKIPPED, log_change=0.0
    )


def _same(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and math.isnan(one) and math.isnan(other))
