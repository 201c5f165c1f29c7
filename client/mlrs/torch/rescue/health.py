"""When a training is copied, and when a copy is put back: from its losses and its advice."""

from __future__ import annotations

import enum
import math

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


class Health:
    """Decides at each step, from the losses and its advice, what is done besides its update.

    The first step of a run is copied before its update. A copy is replaced after a healthy tenth of the
    horizon: no loss in it was NaN or infinite, no advice asked to restore, and at its end neither the average
    loss nor the newest one is far above the lowest average so far.

    Losses may also rise for a good reason, as when the data gets harder. So a copy is old at half of the
    horizon without a new one and without an advice to restore. Then the losses of now are the usual ones:
    the next tenth without a loss that is NaN or infinite replaces it.

    Validation losses that the training tells decide in place of a tenth of the horizon, as long as they
    come: the step of the lowest one so far is copied, or the next healthy one. So an advice to restore leads
    back to the weights that generalized best. The first validation loss is the lowest so far also of a
    training that blew up before it, so such weights must be healthy, too.

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
        self._seen, self._noted = 0, -1
        self._last = self._average = self._slow = self._deviation = math.nan
        self._lowest = self._usual = math.nan  # the lowest average, and the usual deviation then
        self._validated, self._best = (
            -math.inf,
            math.inf,
        )  # the step of the newest validation; the lowest loss
        self._is_best = False  # whether the newest validation loss is the lowest, and not copied yet

    def note(self, step: int, loss: float, validation_loss: float | None = None) -> None:
        """Take in the loss of a step, and the validation loss that was told with it, if one was."""
        if validation_loss is not None and math.isfinite(validation_loss):
            self._validated = step
            self._is_best = validation_loss < self._best
            self._best = min(self._best, validation_loss)
        if math.isfinite(loss):
            self._follow(loss)
        else:
            self._since = max(self._since, step + 1)
        self._noted = step

    def _follow(self, loss: float) -> None:
        """Move the averages by a finite loss."""
        self._last = loss
        self._seen += 1
        if self._seen == 1:
            self._average = self._slow = self._lowest = loss
            self._deviation = self._usual = 0.0
            return
        short, long = (max(min(self._seen, span), 1.0) for span in (self._period / 10, self._period))
        self._deviation += (abs(loss - self._average) - self._deviation) / long
        self._average += (loss - self._average) / short
        self._slow += (loss - self._slow) / long
        if self._average <= self._lowest:
            self._lowest, self._usual = self._average, self._deviation

    def may_keep(self, step: int) -> bool:
        """Return whether a step will be copied if its loss, when it is noted, is healthy, too."""
        if self._since > step:  # the loss of this step is not finite
            return False
        are_told = step - self._validated <= RARE * self._period
        if not (self._is_best if are_told else step - self._since >= self._period):
            return False
        if self._seen == 0 or self._is_low(self._lowest, self._usual):
            return True
        return step - self._young >= self._old and self._is_low(self._slow, self._deviation)

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

    def _measure(self, step: int, horizon: int | None) -> None:
        """Set how many steps a copy must wait for, and how many make it old."""
        total = max(step + 1, UNKNOWN / SHARE) if horizon is None else horizon
        self._period = UNKNOWN if horizon is None else max(math.ceil(SHARE * horizon), 1)
        self._old = max(OLD * total, LEAST_OLD)

    def _decide(self, step: int, *, restore: bool) -> Then:
        if restore:
            self._is_best = False
            self._since = max(self._since, step + 1)
            self._young = step
            return Then.RESTORE
        if self._noted != step or not self.may_keep(step):
            return Then.NOTHING
        self._is_best = False
        if not self._is_low(self._lowest, self._usual):
            self._lowest, self._usual = self._slow, self._deviation
        self._since = self._young = step
        return Then.KEEP

    def _is_low(self, lowest: float, usual: float) -> bool:
        """Return whether neither the average loss nor the newest one is far above an average.

        `lowest`: that average; `usual`: the usual deviation from it.
        """
        above = max(RISE * abs(lowest), DEVIATIONS * usual)
        last_above = max(LAST_RISE * abs(lowest), LAST_DEVIATIONS * usual)
        return self._average - lowest <= above and self._last - lowest <= last_above
