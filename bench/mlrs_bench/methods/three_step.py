"""A schedule of three steps: what the authors' snapshots do, without a network.

{0.73, 0.037, 0.018} times gamma, one per third of the horizon; gamma by the authors' rule from the loss
at the beginning of each third. If a network is no better, it does not use the losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from mlrs_bench.methods.method import Training, set_lr
from mlrs_core.networks.scale import guess_log_classes, shu_gamma

SHARES = (0.73, 0.037, 0.018)
"""The shares of gamma that the authors' snapshots settle at, by their logs."""


class ThreeStep:
    """The LR by the three steps."""

    def __init__(self, training: Training) -> None:
        self._optimizer = training.optimizer()
        self._third = training.task.horizon // len(SHARES)
        classes = training.task.num_classes
        self._log_classes = None if classes is None else math.log(classes)
        self._part = -1
        self._lr = 0.0
        self.held = self.spent = 0

    def observe(self, step: int, loss: float) -> None:
        """Take the loss; it counts at the beginning of a third."""
        part = min(step // max(self._third, 1), len(SHARES) - 1)
        if self._log_classes is None:
            self._log_classes = guess_log_classes(loss)
        if part != self._part:
            self._part = part
            self._lr = SHARES[part] * shu_gamma(loss, self._log_classes)

    def update(self) -> float:
        """Move the weights."""
        set_lr(self._optimizer, self._lr)
        self._optimizer.step()
        return self._lr

    def finish(self, refresh: Callable[[], None]) -> None:
        """Do nothing."""
