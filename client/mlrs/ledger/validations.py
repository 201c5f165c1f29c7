"""The validation losses of a run. Each travels with the first new observation of its step or a later one.

Ctrl-C may interrupt an observation between any two lines, and the call is then repeated: the repeated
observation must get the same validation loss.
"""

from __future__ import annotations

from typing import Any

from mlrs.values.checks import wrong
from mlrs.values.signals import Validation, same_validation

AHEAD = 100
"""How many steps a validation loss may be ahead of the observations. A step beyond is a mistake, such as a
number of samples, and its loss would never be sent."""


def check_not_ahead(step: int, next_step: int) -> None:
    """Raise `InvalidArgumentError` if a step that was validated is far beyond the next one to be observed."""
    if step > next_step + AHEAD:
        what = f"must be at most {AHEAD} beyond the step to observe next, {next_step}"
        raise wrong("step", what, step)


class Validations:
    """The validation losses that wait for observations, and the one that travelled last."""

    def __init__(self) -> None:
        self._waiting: list[Validation] = []  # by step, each told after those before it
        self._sent: tuple[int, Validation] | None = None  # the step of the observation that it went with

    def tell(self, told: Validation) -> None:
        """Let a validation loss wait for its step, instead of those of the same or later steps."""
        self._waiting = [*(one for one in self._waiting if one.step < told.step), told][-AHEAD - 1 :]

    def begin(self, step: int) -> None:
        """Enter the first step of the run; raises `InvalidArgumentError` if one far ahead was validated."""
        told = self._waiting
        self._waiting = [one for one in told if one.step <= step + AHEAD]
        if told:
            check_not_ahead(told[-1].step, step)

    def join(self, entry: Any, *, is_new: bool) -> None:
        """Give an entry the validation loss that it had before; a new step takes the newest of its time."""
        if entry.validation is not None:
            return
        if self._sent is not None and self._sent[0] == entry.step:
            entry.validation = self._sent[1]
        elif is_new and (due := [one for one in self._waiting if one.step <= entry.step]):
            entry.validation = due[-1]

    def entered(self, entry: Any) -> None:
        """Enter that an entry will be sent, or was entered before; what it has waits no more."""
        if entry.validation is not None:
            self._sent = (entry.step, entry.validation)
            if any(same_validation(entry.validation, one) for one in self._waiting):
                self._waiting = [one for one in self._waiting if one.step > entry.validation.step]

    @property
    def newest_waiting(self) -> Validation | None:
        """The newest validation loss that no observation has carried, if there is one."""
        return self._waiting[-1] if self._waiting else None

    def refused(self, entry: Any) -> None:
        """Enter that an entry was refused: what it had waits again, unless a newer one of its time does."""
        if entry.validation is not None:
            if self._sent is not None and self._sent[0] == entry.step:
                self._sent = None
            if not any(one.step <= entry.step for one in self._waiting):
                self._waiting = [entry.validation, *self._waiting]
