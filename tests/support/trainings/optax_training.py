"""A small training with JAX and Optax: a linear regression whose learning rates a daemon advises.

As a script: train from a checkpoint, if there is one, up to a step; write a checkpoint there, and print the
learning rates.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mlrs
from mlrs.optax import AdvisedLR, advised, get_learning_rate

HORIZON = 40
BATCHES = np.random.default_rng(0).normal(size=(HORIZON, 8, 3)).astype(np.float32)


class Training:
    """A training whose step is compiled once.

    Attributes:
        state: the parameters and the optimizer's state.
        rates: the learning rates of its updates.
        losses: the losses of its updates.
    """

    def __init__(
        self,
        learning_rate: AdvisedLR,
        *,
        factory: Any = optax.adamw,
        wrap: Callable[[Any], Any] = lambda optimizer: optimizer,
        **arguments: Any,
    ) -> None:
        self.learning_rate = learning_rate
        self.optimizer = wrap(advised(factory, learning_rate, **arguments))
        params = {"weights": jnp.ones(3)}
        self.state = (params, self.optimizer.init(params))
        self.compiled = jax.jit(self.step, donate_argnums=0)
        self.rates: list[np.float32] = []
        self.losses: list[np.float32] = []

    def step(self, state: Any, batch: Any) -> Any:
        """Return the state after an update, and its loss with its learning rate."""
        params, opt_state = state
        loss, grads = jax.value_and_grad(loss_of)(params, batch)
        updates, opt_state = self.optimizer.update(grads, opt_state, params, value=loss)
        rate = get_learning_rate(opt_state)
        return (optax.apply_updates(params, updates), opt_state), (loss, rate)

    def train(self, first: int, last: int) -> None:
        """Make the updates of some batches."""
        for batch in BATCHES[first:last]:
            self.state, (loss, rate) = self.compiled(self.state, batch)
            self.losses.append(np.float32(loss))
            self.rates.append(np.float32(rate))

    @property
    def weights(self) -> list[float]:
        """The weights, after all updates."""
        return [float(one) for one in self.state[0]["weights"]]

    def save(self, path: Path) -> None:
        """Write the state, as NumPy does."""
        np.savez(path, *map(np.asarray, jax.tree.leaves(self.state)))

    def load(self, path: Path) -> None:
        """Read the state."""
        with np.load(path) as saved:
            leaves = [jnp.asarray(one) for one in saved.values()]
        self.state = jax.tree.unflatten(jax.tree.structure(self.state), leaves)


def loss_of(params: Any, batch: Any) -> Any:
    """Return the loss of a batch, a scalar."""
    return jnp.mean((batch @ params["weights"] - batch.sum(1) / 2) ** 2)


def main(address: str, checkpoint: str, first: str, last: str) -> None:
    """Train, and end without any cleaning up, as a job that is killed does."""
    path = Path(checkpoint)
    with mlrs.connect(address, timeout_s=30.0) as advisor:
        training = Training(AdvisedLR("optax", advisor=advisor, horizon=HORIZON), weight_decay=0.01)
        if path.exists():
            training.load(path)
        training.train(int(first), int(last))
        training.save(path)
        rates = [float(rate).hex() for rate in training.rates]
        print(*rates, "|", *(weight.hex() for weight in training.weights), flush=True)  # noqa: T201 # the result
        os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
