"""Train a small network with JAX and Optax on two spirals, advised; print how the run began, and the losses.

python examples/train_optax.py
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mlrs
from mlrs.optax import AdvisedLR, advised, get_learning_rate

BATCH_SIZE = 64


def spirals(rng: np.random.Generator, count: int) -> tuple[Any, Any]:
    """Return points of two spirals, (count, 2), and which spiral each is of, (count,)."""
    labels = rng.integers(2, size=count)
    angle = rng.uniform(0.5, 3.0, size=count) * np.pi
    turned = angle + np.pi * labels
    points = angle[:, None] / 5 * np.stack([np.cos(turned), np.sin(turned)], 1)
    return points.astype(np.float32) + rng.normal(0, 0.05, (count, 2)).astype(np.float32), labels


def make_params(key: Any, sizes: tuple[int, ...] = (2, 32, 32, 2)) -> list[Any]:
    """Return the weights and biases of a perceptron."""
    keys = jax.random.split(key, len(sizes) - 1)
    shapes = pairwise(sizes)
    return [
        {"weights": jax.random.normal(one, shape) * np.sqrt(2 / shape[0]), "bias": jnp.zeros(shape[1])}
        for one, shape in zip(keys, shapes, strict=True)
    ]


def loss_of(params: list[Any], batch: tuple[Any, Any]) -> Any:
    """Return the mean cross-entropy of a batch, in nats."""
    values, labels = batch
    for layer in params[:-1]:
        values = jax.nn.relu(values @ layer["weights"] + layer["bias"])
    scores = values @ params[-1]["weights"] + params[-1]["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


def main() -> None:
    """Train and report."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--address", help="the daemon, HOST:PORT; default: this user's own")
    parser.add_argument("--task", default="spirals-optax", help="what is trained")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    batches = [spirals(rng, BATCH_SIZE) for _ in range(arguments.steps)]
    with mlrs.connect(arguments.address) as advisor:
        learning_rate = AdvisedLR(arguments.task, advisor=advisor, horizon=arguments.steps, num_classes=2)
        optimizer = advised(optax.adam, learning_rate)

        @jax.jit
        def train_step(state: Any, batch: Any) -> Any:
            params, opt_state = state
            loss, grads = jax.value_and_grad(loss_of)(params, batch)
            updates, opt_state = optimizer.update(grads, opt_state, params, value=loss)
            return (optax.apply_updates(params, updates), opt_state), loss

        params = make_params(jax.random.key(arguments.seed))
        state = (params, optimizer.init(params))
        learning_rate.search(train_step, state, batches)
        print(json.dumps({"why": learning_rate.run.why}))
        for step, batch in enumerate(batches):
            state, loss = train_step(state, batch)
            if step % 100 == 0 or step == arguments.steps - 1:
                rate = float(get_learning_rate(state[1]))
                print(json.dumps({"step": step, "loss": float(loss), "lr": rate}))
        test_loss = float(loss_of(state[0], spirals(rng, 1000)))
        learning_rate.finish(metric=test_loss)
    print(json.dumps({"test_loss": test_loss, "traces": learning_rate.traces}))


if __name__ == "__main__":
    main()
