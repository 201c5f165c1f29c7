"""The exact loss of each batch, on every backend of Keras, and a place in checkpoints for the run's state."""

from __future__ import annotations

import json
from functools import wraps
from typing import Any, Protocol

import keras
import numpy as np

from mlrs.errors import UsageError

ATTRIBUTE = "mlrs_batch_loss"
"""The model's attribute that holds the metric."""
KEY = "state"
"""The name of the run's state in a checkpoint."""


class Owner(Protocol):
    """Who has the state that checkpoints hold."""

    def state(self) -> dict[str, Any] | None:
        """Return what a checkpoint is to hold, plain values; `None`: nothing."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Take what a checkpoint held."""


class BatchLoss(keras.metrics.Metric):
    """A metric that holds the loss of the newest training batch, and shows up in no log.

    Keras saves metrics with a model's weights. This one saves its owner's state instead of its numbers.
    """

    def __init__(self) -> None:
        super().__init__(name=ATTRIBUTE)
        self._loss = self.add_variable((), "zeros", name="loss")
        self._count = self.add_variable((), "zeros", name="count")
        self._owner: Owner | None = None

    def own(self, owner: Owner) -> None:
        """Let checkpoints hold the state of an owner."""
        self._owner = owner

    def update_state(self, loss: Any) -> None:
        """Enter the loss of a batch, a scalar."""
        self._loss.assign(keras.ops.cast(loss, self._loss.dtype))
        self._count.assign(self._count + 1)

    def result(self) -> dict[str, Any]:
        """Return nothing for the logs."""
        return {}

    def take(self) -> float | None:
        """Return the loss of the one batch since the call before, and forget it; `None`: there was none.

        Raises:
            UsageError: there were several.
        """
        count = int(keras.ops.convert_to_numpy(self._count.value))
        if count == 0:
            return None
        loss = float(keras.ops.convert_to_numpy(self._loss.value))
        self.reset_state()
        if count > 1:
            raise UsageError(
                f"compute_loss was called {count} times for one batch: AdvisedLR needs a train_step that"
                " calls it once"
            )
        return loss

    def save_own_variables(self, store: Any) -> None:
        """Write the owner's state."""
        state = None if self._owner is None else self._owner.state()
        if state is not None:
            store[KEY] = np.frombuffer(json.dumps(state).encode(), np.uint8)

    def load_own_variables(self, store: Any) -> None:
        """Give the owner the state that was written, if there is one."""
        if self._owner is not None and KEY in store.keys():  # noqa: SIM118 # stores of Keras have no `in`
            self._owner.load_state(json.loads(np.asarray(store[KEY], np.uint8).tobytes()))


def batch_loss_of(model: Any) -> BatchLoss:
    """Return the metric that holds the loss of a model's batches; the first call puts it there."""
    found = getattr(model, ATTRIBUTE, None)
    if isinstance(found, BatchLoss):
        return found
    metric, compute_loss = BatchLoss(), model.compute_loss

    @wraps(compute_loss)
    def measured(*arguments: Any, **options: Any) -> Any:
        loss = compute_loss(*arguments, **options)
        if loss is not None and options.get("training") is not False:
            metric.update_state(loss)
        return loss

    setattr(model, ATTRIBUTE, metric)
    model.compute_loss = measured
    model.train_function = model.test_function = None  # compiled without the metric
    return metric
