"""The validation losses of a run, each of which travels with the first observation after it was told.

Ctrl-C may interrupt an observation between any two lines, and the call is then repeated: the repeated
observation must get the same validation loss.
"""

from __future__ import annotations

from typing import Any

from mlrs.values.checks import wrong
from mlrs.values.signals import Validation, same_validation


class Validations:
    """The validation loss that waits for the next observation, and the one that travelled last."""

    def __init__(self) -> None:
        self._waiting: Validation | None = None
        self._sent: tuple[int, Validation] | None = None  # the step of the observation that it went with

    def tell(self, told: Validation) -> None:
        """Let a validation loss wait for the next observation, instead of one that waits already."""
        self._waiting = told

    def begin(self, step: int) -> None:
        """Enter the first step of the run; raises `InvalidArgumentError` if a later one was validated."""
        told = self._waiting
        if told is not None and told.step > step:
            self._waiting = None
            what = f"must be at most the first step that is observed, {step}, where a validation loss is told"
            raise wrong("step", what, told.step)

    def join(self, entry: Any, *, is_new: bool) -> None:
        """Give an entry the validation loss that it had before; a new step may take the one that waits."""
        if entry.validation is not None:
            return
        if self._sent is not None and self._sent[0] == entry.step:
            entry.validation = self._sent[1]
        elif is_new and self._waiting is not None and self._waiting.step <= entry.step:
            entry.validation = self._waiting

    def entered(self, entry: Any) -> None:
        """Enter that an entry will be sent, or was entered before; what it has waits no more."""
        if entry.validation is not None:
            self._sent = (entry.step, entry.validation)
            if same_validation(entry.validation, self._waiting):
                self._waiting = None

    def refused(self, entry: Any) -> None:
        """Enter that an entry was refused: what it had waits again, unless a newer one does."""
        if entry.validation is not None:
            if self._sent is not None and self._sent[0] == entry.step:
                self._sent = None
            if self._waiting is None:
                self._waiting = entry.validation
