"""A run's state without a daemon: its fallback, its outage, and its last advice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlrs.errors import MlrsError
from mlrs.ledger.entries import Observed
from mlrs.ledger.fallback import Fallback
from mlrs.ledger.open_request import FallbackSteps
from mlrs.ledger.outage import Outage
from mlrs.ledger.updates import Update


class Standby:
    """The fallback of one run, or of the runs of a sweep, and whether it answers now.

    Attributes:
        fallback: answers while no daemon can be reached; `None`: errors are raised.
        outage: the outage that the run is in, if any.
        steps: how many steps the fallback has answered.
        untold: those that no daemon has been told of; `None`: there are none.
        last_lr: the last learning rate, or one for each run; before the first advice, the fallback's first.
        last_step: the step of the last advice; -1: none yet.
        starts_alone: whether the fallback answers before the run was opened, too.
        may_start_alone: whether an adapter may turn that on.
    """

    def __init__(self, fallback: Fallback | None) -> None:
        self.fallback = fallback
        self.outage: Outage | None = None
        self.steps = 0
        self.untold: FallbackSteps | None = None
        self.last_lr: Any = None
        self.last_step = -1
        self.starts_alone = False
        self.may_start_alone = False

    def can_answer(self, *, is_open: bool) -> bool:
        """Return whether there is a fallback with a learning rate for the run, which may be open."""
        return (
            self.fallback is not None
            and (is_open or self.starts_alone)
            and (self.fallback.rate is not None or self.last_lr is not None)
        )

    @property
    def is_lost(self) -> bool:
        """Whether the daemon cannot continue the run any more: the fallback answers to the end."""
        return self.outage is not None and self.outage.lost is not None

    def start_alone(self, learning_rate: float | None) -> None:
        """Let the fallback answer before the run is open, too, from this rate on if it has no other."""
        self.starts_alone = True
        if self.last_lr is None:
            self.last_lr = learning_rate

    def advised(self, step: int, learning_rate: Any) -> None:
        """Enter the newest advice: a learning rate, or one for each run."""
        if step >= self.last_step:
            self.last_step, self.last_lr = step, learning_rate

    def answer(self, entry: Observed, durable_step: int) -> None:
        """Answer an observation, which is nevertheless sent later."""
        if not entry.done and self.fallback is not None:
            entry.stand_in(self.fallback.lr(entry.step, self.last_lr), durable_step)
            self.steps += 1
            first, count = self.untold or (entry.step, 0)
            self.untold = FallbackSteps(min(first, entry.step), count + 1)

    def told(self, what: FallbackSteps | None) -> None:
        """Enter what a daemon was told of the steps that the fallback answered; more may have come since."""
        if what is not None and self.untold is not None:
            left = self.untold.steps - what.steps
            self.untold = FallbackSteps(what.first + what.steps, left) if left else None

    def answer_update(self, update: Update, entry: Observed | None, durable_step: int) -> None:
        """Answer an update with the learning rate of its step, whose observation is `entry`."""
        if update.done or self.fallback is None:
            return
        if entry is not None:
            self.answer(entry, durable_step)
            if entry.rates is not None:
                update.stand_in(list(entry.rates))
                return
        last = self.fallback.lr(update.step, self.last_lr) if self.last_lr is None else self.last_lr
        update.stand_in(each_of(last, len(update.results)))

    def begin_outage(self, label: str, cause: MlrsError, until: int) -> None:
        """Let the fallback answer until the daemon has answered the step `until`."""
        self.outage = Outage(label, cause, until, self.steps)

    def lose(self, error: MlrsError, *, keeps_losses: bool) -> None:
        """Let the fallback answer to the end, since the outage does not end."""
        if self.outage is not None:
            self.outage.lost, self.outage.keeps_losses = error, keeps_losses

    def is_back(self, step: int) -> bool:
        """Return whether the daemon's answer to a step, or to its update, ends the outage."""
        outage = self.outage
        return outage is not None and outage.lost is None and step >= outage.until


def each_of(rate: Any, runs: int) -> Sequence[Any]:
    """Return one learning rate for each run, from one for all or one for each."""
    rates = rate.tolist() if hasattr(rate, "tolist") else rate
    return list(rates) if isinstance(rates, (list, tuple)) else [rates] * runs
