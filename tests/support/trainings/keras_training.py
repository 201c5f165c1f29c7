"""A small training with Keras, on whichever backend the environment names.

As a script: train with `BackupAndRestore` up to a batch, where the process ends at once, or to the end;
print the learning rates of all batches, and the weights.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

import keras
import numpy as np

import mlrs
from mlrs.keras import AdvisedLR

BATCH_SIZE, BATCHES, EPOCHS = 8, 5, 4
STEPS = BATCHES * EPOCHS
_rng = np.random.default_rng(0)
INPUTS = _rng.normal(size=(BATCH_SIZE * BATCHES, 3)).astype(np.float32)
TARGETS = INPUTS.sum(1, keepdims=True) / 2 + 1
WEIGHTS = [_rng.normal(size=shape).astype(np.float32) for shape in ((3, 6), (6,), (6, 1), (1,))]


def make_model(optimizer: Any = None, *, dropout: float = 0.0, **options: Any) -> Any:
    """Return a small compiled model, the same each time."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(6, activation="tanh", kernel_regularizer="l2"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(dropout, seed=1),
            keras.layers.Dense(1),
        ]
    )
    model.layers[0].set_weights(WEIGHTS[:2])
    model.layers[-1].set_weights(WEIGHTS[2:])
    model.compile(optimizer or keras.optimizers.Adam(0.01), loss="mse", **options)
    return model


class Watch(keras.callbacks.Callback):
    """Notes what Keras has in its logs and variables, and can end the training in the middle.

    Attributes:
        rates: the learning rate of each batch, as the optimizer had it.
        logged: the learning rates in the logs of batches.
    """

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.rates: list[float] = []
        self.logged: list[float] = []
        self.stop_at = stop_at
        self.stop: Any = KeyboardInterrupt

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note the learning rates; end the training after so many batches."""
        del batch
        self.rates.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate.value)))
        self.logged.append(logs["learning_rate"])
        if len(self.rates) == self.stop_at:
            raise self.stop


def fit(model: Any, advised: AdvisedLR, *callbacks: Any, **options: Any) -> Any:
    """Train on the same batches each time."""
    settings = {"batch_size": BATCH_SIZE, "epochs": EPOCHS, "shuffle": False, "verbose": 0} | options
    return model.fit(INPUTS, TARGETS, callbacks=[advised, *callbacks], **settings)


def weights_of(model: Any) -> list[str]:
    """Return the weights, to the bit."""
    return [weight.tobytes().hex() for weight in model.get_weights()]


def main(address: str, folder: str, stop_at: str = "") -> None:
    """Train, from a backup if there is one, and end without any cleaning up, as a job that is killed does."""
    model, watch = make_model(), Watch(int(stop_at) if stop_at else None)
    with mlrs.connect(address, timeout_s=30.0) as advisor, suppress(KeyboardInterrupt):
        fit(model, AdvisedLR("keras", advisor=advisor), watch, keras.callbacks.BackupAndRestore(folder))
    print(*map(float.hex, watch.rates), "|", *weights_of(model), flush=True)  # noqa: T201 # the result
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
