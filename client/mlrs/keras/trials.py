"""The batches of a Keras training as the trials of a search."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, final

import keras
import numpy as np

from mlrs.adapters import TrialBatches
from mlrs.errors import InvalidArgumentError, UsageError
from mlrs.keras.batch_loss import BatchLoss

DEFAULT_BATCH_SIZE = 32
"""The batch size of `fit`, by default."""


@final
class Trials:
    """A `TrialLoop` of `mlrs.adapters` that trains a compiled model with `train_on_batch`.

    Copies of all variables are kept in host memory.

    Args:
        model: compiled and built.
        loss: the metric that holds the loss of its batches.
        batches: tuples of inputs, targets and, if needed, sample weights.
        micro_steps: how many batches an update has.
    """

    def __init__(self, model: Any, loss: BatchLoss, batches: Iterable[Any], micro_steps: int) -> None:
        self._model, self._loss, self._micro_steps = model, loss, micro_steps
        self._batches = TrialBatches(batches)
        self._saved: list[tuple[Any, Any]] = []
        self._generator: Any = None

    def save(self) -> None:
        """Copy all variables, and the state of the backend's random number generator."""
        variables = [*self._model.variables, *self._model.optimizer.variables]
        self._saved = [(one, np.array(keras.ops.convert_to_numpy(one.value))) for one in variables]
        if keras.backend.backend() == "torch":
            import torch

            self._generator = torch.get_rng_state()

    def restore(self) -> None:
        """Put the copies back."""
        for variable, value in self._saved:
            variable.assign(value)
        if self._generator is not None:
            import torch

            torch.set_rng_state(self._generator)
        self._model.reset_metrics()

    def step(self, update: int, learning_rate: float) -> float:
        """Make an update, and return its loss."""
        first = update * self._micro_steps
        chosen = [self._batches.update(first + micro_step) for micro_step in range(self._micro_steps)]
        return self._trained(chosen, learning_rate)

    def evaluate(self) -> float:
        """Return the mean loss on the batches of comparison, of updates with a learning rate of 0."""
        judged = self._batches.judged()
        return math.fsum(self._trained([batch] * self._micro_steps, 0.0) for batch in judged) / len(judged)

    def _trained(self, batches: list[Any], learning_rate: float) -> float:
        self._model.optimizer.learning_rate = learning_rate
        return math.fsum(map(self._loss_of, batches)) / len(batches)

    def _loss_of(self, batch: Any) -> float:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        self._model.train_on_batch(x, y, sample_weight=sample_weight)
        loss = self._loss.take()
        if loss is None:
            raise not_measured()
        return loss


def not_measured() -> UsageError:
    """Return the error of a model whose loss cannot be had."""
    return UsageError(
        "the loss of a batch cannot be had: the model's train_step does not call self.compute_loss. Compute"
        " the loss there, or override compute_loss instead"
    )


def batches_of(data: Any, batch_size: int | None) -> Iterable[Any]:
    """Return the batches of a search: of arrays, in an order drawn once; or what the iterable yields.

    Args:
        data: a tuple of arrays, or of nested arrays, as `fit` takes them: inputs, targets and, if needed,
            sample weights; or an iterable of such tuples, each a batch.
        batch_size: of arrays. Default: that of `fit`.

    Raises:
        InvalidArgumentError: it is neither.
    """
    if isinstance(data, tuple):
        return _drawn(data, batch_size or DEFAULT_BATCH_SIZE)
    if not hasattr(data, "__iter__"):
        raise InvalidArgumentError(
            f"search_data must be a tuple (x, y), or an iterable of batches; is {type(data).__name__}",
            field="search_data",
        )
    iterable: Iterable[Any] = data
    return iterable


def _drawn(data: tuple[Any, ...], batch_size: int) -> Iterator[Any]:
    count = len(keras.tree.flatten(data)[0])
    order = np.random.default_rng(0).permutation(count)
    for first in range(0, count - batch_size + 1, batch_size):
        chosen = order[first : first + batch_size]
        yield tuple(keras.tree.map_structure(lambda part: np.asarray(part)[chosen], part) for part in data)  # noqa: B023 # called at once
