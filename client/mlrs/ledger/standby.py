"""What a run goes on with while no daemon answers it: its fallback, its outage, and its last advice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlrs.errors import MlrsError
from mlrs.ledger.entries import Observed
from mlrs.ledger.fallback import Fallback
from mlrs.ledger.outage import Outage
from mlrs.ledger.updates import Update


class Standby:
    """The fallback of one run, or of the runs of a sweep, and whether it is needed now.

    Attributes:
        fallback: what answers while no daemon can be reached; `None`: nothing.
        outage: the outage that the run is in, if any.
        steps: how many steps the fallback has answered.
        last_lr: the last advice, or one for each run; before there is any, what the fallback begins with.
        last_step: the step that it was for; -1: none yet.
        starts_alone: whether the fallback answers even before the run was opened.
        may_start_alone: whether an adapter may have it do so.
    """

    def __init__(self, fallback: Fallback | None) -> None:
        self.fallback = fallback
        self.outage: Outage | None = None
        self.steps = 0
        self.last_lr: Any = None
        self.last_step = -1
        self.starts_alone = False
        self.may_start_alone = False

    def can_answer(self, *, is_open: bool) -> bool:
        """Return whether there is a fallback that has something to answer, of a run that is open or not."""
        return (
            self.fallback is not None
            and (is_open or self.starts_alone)
            and (self.fallback.rate is not None or self.last_lr is not None)
        )

    @property
    def is_lost(self) -> bool:
        """Whether the daemon cannot catch up any more: the fallback goes on for good."""
        return self.outage is not None and self.outage.lost is not None

    def start_alone(self, learning_rate: float | None) -> None:
        """Have the fallback answer even before the run is open; from this rate on if there is no other."""
        self.starts_alone = True
        if self.last_lr is None:
            self.last_lr = learning_rate

    def advised(self, step: int, learning_rate: Any) -> None:
        """Take in the newest advice: a learning rate, or one for each run."""
        if step >= self.last_step:
            self.last_step, self.last_lr = step, learning_rate

    def answer(self, entry: Observed, durable_step: int) -> None:
        """Answer an observation, which stays to be sent."""
        if not entry.done and self.fallback is not None:
            entry.stand_in(self.fallback.lr(entry.step, self.last_lr), durable_step)
            self.steps += 1

    def answer_update(self, update: Update, entry: Observed | None, durable_step: int) -> None:
        """Answer an update with what the loop uses for its step, of which `entry` is the observation."""
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
        """Answer from here on, until the daemon has answered a step."""
        self.outage = Outage(label, cause, until, self.steps)

    def lose(self, error: MlrsError, *, keeps_losses: bool) -> None:
        """Answer for good, as the outage does not end."""
        if self.outage is not None:
            self.outage.lost, self.outage.keeps_losses = error, keeps_losses

    def is_back(self, step: int) -> bool:
        """Return whether the daemon's answer to a step, or to its update, ends the outage."""
        outage = self.outage
        return outage is not None and outage.lost is None and step >= outage.until


def each_of(rate: Any, runs: int) -> Sequence[Any]:
    """Return a learning rate for each run, of one for all or one for each."""
    rates = rate.tolist() if hasattr(rate, "tolist") else rate
    return list(rates) if isinstance(rates, (list, tuple)) else [rates] * runs
