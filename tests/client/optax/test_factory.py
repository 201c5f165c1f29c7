"""Optimizers with an advised learning rate update as the plain ones, and runs are told what they are."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

import mlrs
from mlrs.errors import InvalidArgumentError
from tests.support.frameworks import framework

jax = framework("jax")
optax = framework("optax")

import jax.numpy as jnp  # noqa: E402 # once it is known to be there

from mlrs.optax import AdvisedLR, advised  # noqa: E402


@pytest.mark.parametrize(
    ("factory", "arguments", "optimizer", "momentum"),
    [
        (optax.sgd, {}, "sgd", 0.0),
        (optax.sgd, {"momentum": 0.9}, "momentum", 0.9),
        (partial(optax.sgd, momentum=0.8, nesterov=True), {}, "nesterov", 0.8),
        (optax.adam, {"b1": 0.5}, "adam", 0.5),
        (optax.adamw, {"weight_decay": 0.1}, "adamw", 0.9),
        (optax.lion, {}, "other", None),
    ],
)
def test_the_run_is_told(
    advisor: mlrs.Advisor, factory: Any, arguments: Any, optimizer: str, momentum: float | None
) -> None:
    """The run's config has the optimizer's kind and momentum; what the user states counts more."""
    learning_rate = AdvisedLR("optax", advisor=advisor, memory=False)
    advised(factory, learning_rate, **arguments)
    config = learning_rate.run.config
    assert (config.optimizer, config.momentum) == (optimizer, momentum)
    stated = AdvisedLR("optax", advisor=advisor, memory=False, optimizer="other")
    advised(factory, stated, **arguments)
    assert stated.run.config.optimizer == "other"


def test_updates_are_those_of_the_plain_optimizer() -> None:
    """Only the learning rate is injected: updates equal those of the plain optimizer to the bit."""
    arguments: dict[str, Any] = {"b1": 0.85, "b2": 0.97, "weight_decay": 0.03, "mask": {"w": True}}
    plain, injected = optax.adamw(0.01, **arguments), advised(optax.adamw, 0.01, **arguments)
    params = {"w": jnp.arange(1.0, 4.0)}
    states = [plain.init(params), injected.init(params)]
    for step in range(5):
        grads = jax.tree.map(lambda leaf: jnp.sin(leaf * (1 + step)), params)  # noqa: B023 # called at once
        updates, states[0] = jax.jit(plain.update)(grads, states[0], params)
        ours, states[1] = jax.jit(injected.update)(grads, states[1], params)
        assert updates["w"].tolist() == ours["w"].tolist()
        params = optax.apply_updates(params, updates)


@pytest.mark.parametrize("factory", [optax.scale_by_adam, optax.sgd(0.1), 3])
def test_what_makes_no_optimizer(factory: Any) -> None:
    """What is no function with a parameter `learning_rate` is refused by name."""
    with pytest.raises(InvalidArgumentError, match="parameter learning_rate"):
        advised(factory, 0.1)
