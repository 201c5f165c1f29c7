"""The part of the adapter that runs outside compiled code: asks a run, and follows the optimizer's state."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import final

import mlrs
from mlrs.adapters import RunState
from mlrs.errors import RunNotFoundError, StaleStepError, UsageError

_logger = logging.getLogger("mlrs")
MOST_REPEATS = 100
"""How often in a row one step may be observed with another loss, until that is an error."""


@final
class Asking:
    """Answers the callbacks of compiled updates, one at a time.

    Args:
        make: returns a run with the given id; `None`: with a new one.

    Attributes:
        run: the run.
        asked: how many callbacks were answered with advice.
    """

    def __init__(self, make: Callable[[str | None], mlrs.Run]) -> None:
        self._make = make
        self.run = make(None)
        self.asked = 0
        self._trial: tuple[float, list[float]] | None = None  # its learning rate, and its losses so far
        self._last: int | None = None  # the step that was observed last
        self._repeats = 0
        self._has_warned = False
        self._lock = threading.Lock()

    def learning_rate(self, run_id: str, step: int, loss: float) -> float:
        """Return the learning rate for a step of a run, whose state may come from a checkpoint."""
        with self._lock:
            if self._trial is not None:
                learning_rate, losses = self._trial
                losses.append(loss)
                return learning_rate
            self.follow(run_id, step)
            try:
                learning_rate = self.run.next_lr(step, loss)
                self._repeats = 0
            except StaleStepError:
                self._count_repeat(step)
                self.run.resume(RunState(run_id, step))
                learning_rate = self.run.next_lr(step, loss)
            self._last = step
            self.asked += 1
            return learning_rate

    @contextmanager
    def trial(self, learning_rate: float) -> Iterator[list[float]]:
        """Answer with a learning rate of a search, and return the list that the losses are added to."""
        losses: list[float] = []
        self._trial = learning_rate, losses
        try:
            yield losses
        finally:
            self._trial = None

    def follow(self, run_id: str, step: int) -> None:
        """Continue the run that an optimizer's state names, if it is another one."""
        if run_id == self.run.id:
            return
        try:
            self.run.resume(RunState(run_id, step))
        except RunNotFoundError:
            if step > 0:
                raise
            self.run.detach()  # the state was saved before its run began
            self.run = self._make(run_id)

    def _count_repeat(self, step: int) -> None:
        """Notice an optimizer whose state does not advance: its step is a constant, or is not carried on."""
        if step != self._last:
            self._repeats = 0
            _logger.info("%s: goes back to step %d, as the optimizer's state does", self.run.id, step)
            return
        self._repeats += 1
        why = (
            f"{self.run.id}: step {step} is observed again with another loss. Either the state that"
            " optimizer.update() returns is not used for the next update, or it is a constant of a compiled"
            " function rather than its argument, or optax.MultiSteps is outside: pass accumulation_steps= to"
            " AdvisedLR instead"
        )
        if self._repeats >= MOST_REPEATS:
            raise UsageError(why)
        if not self._has_warned:
            self._has_warned = True
            _logger.warning("%s", why)
