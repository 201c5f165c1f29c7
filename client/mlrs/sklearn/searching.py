"""An estimator as a loop that a search makes trials with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import numpy as np

EVALUATED = 4
"""How many batches the loss after a trial is the mean of."""


class Trials:
    """`TrialLoop` of an estimator: trials take the first batches, each the same ones."""

    def __init__(
        self,
        estimator: Any,
        batches: Sequence[Any],
        fit: Callable[[float, Any], None],
        loss_of: Callable[[Any], float],
    ) -> None:
        """`fit` updates the estimator at a learning rate with a batch, `loss_of` measures a batch."""
        self._estimator = estimator
        self._batches = batches
        self._fit = fit
        self._loss_of = loss_of

    def save(self) -> None:
        """Save all that updates change."""
        self._saved = copy.deepcopy(vars(self._estimator)), np.random.get_state()  # noqa: NPY002 # it uses that

    def restore(self) -> None:
        """Put it back."""
        attributes, numbers = self._saved
        vars(self._estimator).clear()
        vars(self._estimator).update(copy.deepcopy(attributes))
        np.random.set_state(numbers)  # noqa: NPY002 # as in `save`

    def step(self, update: int, learning_rate: float) -> float:
        """Make an update; return the loss before it."""
        batch = self._batches[update % len(self._batches)]
        loss = self._loss_of(batch)
        self._fit(learning_rate, batch)
        return loss

    def evaluate(self) -> float:
        """Return the mean loss of some batches."""
        return fmean(self._loss_of(batch) for batch in self._batches[:EVALUATED])
