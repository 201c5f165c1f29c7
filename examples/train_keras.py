"""Train a small network with Keras on two spirals, advised; print how the run began, and the losses.

KERAS_BACKEND=jax python examples/train_keras.py
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

import keras
import numpy as np

import mlrs
from mlrs.keras import AdvisedLR


def spirals(rng: np.random.Generator, count: int) -> tuple[Any, Any]:
    """Return points of two spirals, (count, 2), and which spiral each is of, (count,)."""
    labels = rng.integers(2, size=count)
    angle = rng.uniform(0.5, 3.0, size=count) * np.pi
    turned = angle + np.pi * labels
    points = angle[:, None] / 5 * np.stack([np.cos(turned), np.sin(turned)], 1)
    return points.astype(np.float32) + rng.normal(0, 0.05, (count, 2)).astype(np.float32), labels


def make_model() -> Any:
    """Return a compiled perceptron."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(32, activation="relu"),
            layers.Dense(32, activation="relu"),
            layers.Dense(2),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(), loss=loss, metrics=["accuracy"])
    return model


def main() -> None:
    """Train and report."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--address", help="the daemon, HOST:PORT; default: this user's own")
    parser.add_argument("--task", default="spirals-keras", help="what is trained")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backup", help="a folder; a training that is killed continues from there")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    x, y = spirals(rng, 2048)
    with mlrs.connect(arguments.address) as advisor:
        advised = AdvisedLR(arguments.task, advisor=advisor, num_classes=2, search_data=(x, y), batch_size=64)
        callbacks: list[Any] = [advised]
        if arguments.backup:
            callbacks.append(keras.callbacks.BackupAndRestore(arguments.backup))
        fitted = make_model().fit(
            x,
            y,
            batch_size=64,
            epochs=arguments.epochs,
            validation_data=spirals(rng, 512),
            callbacks=callbacks,
            verbose=0,
        )
        assert advised.run is not None
        print(json.dumps({"why": advised.run.why, "found": str(advised.found)}))
    for epoch in fitted.epoch:
        print(json.dumps({"epoch": epoch} | {name: one[epoch] for name, one in fitted.history.items()}))


if __name__ == "__main__":
    main()
