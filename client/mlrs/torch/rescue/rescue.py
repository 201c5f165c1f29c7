"""What all ranks do for rescue at a step: copy the training, put the copy back, and say so."""

from __future__ import annotations

from torch.optim import Optimizer

from mlrs import Run
from mlrs.torch.ranks import Together, Told
from mlrs.torch.rescue.health import Health, Then
from mlrs.torch.rescue.training_copy import TrainingCopy


class Rescue:
    """The rescue of a training, in any order of the calls of its loop.

    The update of a step may come before the scheduler's step ends, or after. Where it comes after, a bad
    update is still to come when the advice to restore is known. So the copy is put back at the end of the
    step, and again after the next update. An update is known to come before if it came between a loss and
    the end of its step; or, in a loop that tells the loss at the end, if the first update came before the
    first end.

    Attributes:
        health: decides what is done, where this process talks to the daemon.
    """

    def __init__(
        self, optimizer: Optimizer, model: object, together: Together | None, *, is_on: bool
    ) -> None:
        """See `TrainingCopy`; call `begin` next."""
        self._copy = TrainingCopy(optimizer, model, together, is_on=is_on)
        self._updates_first = False  # whether updates come before the ends of their steps
        self._has_ended = self._was_told_at_end = False  # of the steps so far, and the newest
        self.begin(0)

    def begin(self, step: int, *, is_restored: bool = False) -> None:
        """Begin before a step, without a copy. `is_restored`: one was put back before it."""
        self.health = Health(step)
        self._then = Then.NOTHING  # what the advice of this step says to do besides
        self._restores_again = False  # whether the copy is put back after the next update, too
        self._restored_before = step if is_restored else None
        self._copy.forget()

    def is_restored(self, step: int) -> bool:
        """Return whether a copy was put back since the observation before that of a step."""
        return step == self._restored_before

    def advised(self, then: int) -> None:
        """Take in what the advice of a step says to do: a `Then`."""
        self._then = Then(then)

    def observed(self) -> None:
        """Note that the next loss was observed. An update that has not come by then was skipped."""
        self._restores_again = False

    def before_update(self) -> None:
        """Copy the training if the advice of this step, which is known, says so."""
        if self._then == Then.KEEP:
            self._copy.keep()
            self._then = Then.NOTHING

    def after_update(self, *, in_step: bool) -> bool:
        """Put the copy back if it has to be after this update, too; return whether that was to be done.

        `in_step`: whether the update came between a loss and the end of its step. No collective.
        """
        was_first = self._updates_first and self._was_told_at_end
        self._updates_first = in_step or was_first or not self._has_ended
        again, self._restores_again = self._restores_again, False
        if again:
            self._copy.restore_again()
        return again

    def end(self, step: int, *, is_told: bool) -> bool:
        """End a step, whose advice is known; return whether a copy was put back.

        `is_told`: whether its loss was told in this call. One all-reduce of the ranks if a copy is to be put
        back.
        """
        self.before_update()  # which may have been skipped
        self._has_ended, self._was_told_at_end = True, is_told
        then, self._then = self._then, Then.NOTHING
        if then != Then.RESTORE or not self._copy.restore():
            return False
        self._restored_before = step + 1
        self._restores_again = not self._updates_first
        return True

    def stop(self) -> None:
        """Drop the copy."""
        self._copy.forget()


def told(run: Run, health: Health, step: int, learning_rate: float, *, restore: bool | None = None) -> Told:
    """Return what a step is told: the learning rate, and what is done besides.

    `restore`: whether its advice asks to restore the copy; `None`: a lagged loop asks the newest advice.
    """
    if not has_rescue(run):
        return Told(learning_rate, Then.NOTHING)
    if restore is None:
        restore = run.newest_restore(before=step)
    return Told(learning_rate, health.then(step, restore=restore, horizon=run.config.horizon))


def has_rescue(run: Run) -> bool:
    """Return whether a run has rescue, as far as is known without waiting."""
    return run.is_open and bool(run.config.rescue)
