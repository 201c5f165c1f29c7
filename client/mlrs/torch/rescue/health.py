"""When a training is copied, and when a copy is put back: from its losses and its advice."""

from __future__ import annotations

import enum
import math
from copy import copy

SHARE = 0.1
"""The share of the horizon after which a copy is replaced."""
UNKNOWN = 1000
"""The steps after which it is replaced where the horizon is not known."""
RISE, DEVIATIONS = 0.1, 2.0
"""A training is healthy while its average loss is above the lowest one by at most this share of it, or by so
many deviations, as usual when it was lowest."""
LAST_RISE, LAST_DEVIATIONS = 1.0, 4.0
"""The same for the newest loss alone."""
RARE = 3.0
"""Validation losses decide until so many shares `SHARE` of the horizon have passed without a new one."""
APART = 0.1
"""The share of a tenth of the horizon that lies between two copies for validation losses at least."""
OLD, LEAST_OLD = 0.5, 100
"""The share of the horizon, and the least steps, after which a copy is old. The daemon tells of a dead
network after a fifth of the horizon, 50 steps at least: long before the last healthy copy is old."""


class Then(enum.IntEnum):
    """What is done at a step besides its update; the numbers are broadcast to the ranks."""

    NOTHING = 0
    KEEP = 1
    """Before the update, copy the training."""
    RESTORE = 2
    """After the update, put the copy back."""


class Losses:
    """The losses of a training so far: the newest one, and moving averages, all NaN before the first loss."""

    def __init__(self) -> None:
        self._seen = 0
        self._newest = self._average = self._slow = self._deviation = math.nan
        self._lowest = self._usual = math.nan  # the lowest average, and the usual deviation then

    def follow(self, loss: float, period: int) -> None:
        """Move the averages, over a tenth of a number of steps, and over all of it, by a finite loss."""
        self._newest = loss
        self._seen += 1
        if self._seen == 1:
            self._average = self._slow = self._lowest = loss
            self._deviation = self._usual = 0.0
            return
        short, long = (max(min(self._seen, span), 1.0) for span in (period / 10, period))
        self._deviation += (abs(loss - self._average) - self._deviation) / long
        self._average += (loss - self._average) / short
        self._slow += (loss - self._slow) / long
        if self._average <= self._lowest:
            self._lowest, self._usual = self._average, self._deviation

    def are_low(self) -> bool:
        """Return whether neither the average nor the newest loss is far above the lowest average."""
        return self._seen == 0 or self._are_near(self._lowest, self._usual)

    def are_steady(self) -> bool:
        """Return whether neither of them is far above the average over the longer span."""
        return self._are_near(self._slow, self._deviation)

    def begin_again(self) -> None:
        """Take losses as they usually are now for the lowest ones."""
        self._lowest, self._usual = self._slow, self._deviation

    def _are_near(self, level: float, usual: float) -> bool:
        above = max(RISE * abs(level), DEVIATIONS * usual)
        newest_above = max(LAST_RISE * abs(level), LAST_DEVIATIONS * usual)
        return self._average - level <= above and self._newest - level <= newest_above


class Health:
    """Decides at each step, from the losses and its advice, what is done besides its update.

    The first step of a run is copied before its update. A copy is replaced after a healthy tenth of the
    horizon: no loss in it was NaN or infinite, no advice asked to restore, and at its end neither the average
    loss nor the newest one is far above the lowest average so far.

    Losses may also rise for a good reason, as when the data gets harder. So a copy is old at half of the
    horizon without a new one and without an advice to restore. Then the losses of now are the usual ones:
    the next tenth without a loss that is NaN or infinite replaces it.

    Validation losses that the training tells decide in place of a tenth of the horizon, as long as they
    come: the step of one below that of the copy is copied, or the next healthy one, if the newest is still
    below then. A hundredth of the horizon lies between copies, as after a start or a bad loss. So an advice
    to restore leads back to the weights that generalized best. The first validation loss is the lowest so far
    also of a training that blew up before it, so such weights must be healthy, too.

    A copy that is put back brings its losses with it: lower ones, as of a stretch that overfitted, are
    forgotten. So are those of the steps up to then that are noted afterwards.

    The loss of a step is that of the weights before its update, which a copy at this step would hold. So a
    step is copied only once its own loss was noted. Losses may be noted by another thread, in order.
    """

    def __init__(self, step: int) -> None:
        """Begin before a step of a run; a copy is made at once only if it is the first."""
        self._period = UNKNOWN
        self._since = -math.inf if step == 0 else step
        self._young = step  # since when the copy gets old
        self._old = math.inf  # at how many steps it is
        self._decided: tuple[int, Then] = (-1, Then.NOTHING)
        self._noted = -1
        self._losses = Losses()
        self._copied: Losses | None = None  # as they were at the copy
        self._given_up = -1  # the step at which a copy was put back
        self._validated = -math.inf  # the step of the newest validation loss
        self._validation = self._best = math.inf  # the newest validation loss, and that of the copy

    def note(self, step: int, loss: float, validation_loss: float | None = None) -> None:
        """Take in the loss of a step, and the validation loss that was told with it, if one was."""
        self._noted = step
        if not math.isfinite(loss):
            self._since = max(self._since, step + 1)
        if step <= self._given_up:
            return
        if validation_loss is not None and math.isfinite(validation_loss):
            self._validated, self._validation = step, validation_loss
        if math.isfinite(loss):
            self._losses.follow(loss, self._period)

    def may_keep(self, step: int) -> bool:
        """Return whether a step will be copied if its loss, when it is noted, is healthy, too."""
        waited = step - self._since
        if self._are_told(step):
            is_due = self._validation < self._best and waited >= APART * self._period
        else:
            is_due = waited >= self._period
        if not is_due:
            return False
        return self._losses.are_low() or (step - self._young >= self._old and self._losses.are_steady())

    def then(self, step: int, *, restore: bool, horizon: int | None) -> Then:
        """Return what is done at a step; asked again, the same.

        Args:
            step: the step. If its loss was not noted yet, it is not copied.
            restore: whether its advice asks to restore the copy.
            horizon: the run's, in steps, if it is known.
        """
        if self._decided[0] != step:
            self._measure(step, horizon)
            self._decided = step, self._decide(step, restore=restore)
        return self._decided[1]

    def _are_told(self, step: int) -> bool:
        """Return whether validation losses come."""
        return step - self._validated <= RARE * self._period

    def _measure(self, step: int, horizon: int | None) -> None:
        """Set how many steps a copy must wait for, and how many make it old."""
        total = max(step + 1, UNKNOWN / SHARE) if horizon is None else horizon
        self._period = UNKNOWN if horizon is None else max(math.ceil(SHARE * horizon), 1)
        self._old = max(OLD * total, LEAST_OLD)

    def _decide(self, step: int, *, restore: bool) -> Then:
        if restore:
            self._given_up = step
            if self._copied is not None:
                self._losses = copy(self._copied)
            self._validation = math.inf
            self._since = max(self._since, step + 1)
            self._young = step
            return Then.RESTORE
        if self._noted != step or not self.may_keep(step):
            return Then.NOTHING
        if not self._losses.are_low():
            self._losses.begin_again()
        self._copied = copy(self._losses)
        self._best = self._validation if self._are_told(step) else math.inf
        self._since = self._young = step
        return Then.KEEP
