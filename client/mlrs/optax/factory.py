"""Optimizers of Optax whose learning rate is part of their state."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import optax

from mlrs.adapters import OTHER, adam_of, sgd_of
from mlrs.errors import InvalidArgumentError
from mlrs.optax.schedule import AdvisedLR


def advised(optimizer: Any, learning_rate: Any, **arguments: Any) -> optax.GradientTransformationExtraArgs:
    """Return an optimizer whose learning rate is that of an `AdvisedLR`, and part of its state.

    It is `optax.inject_hyperparams` for the learning rate alone: all other arguments stay what they are,
    so that every update is that of the plain optimizer, to the bit.

    Args:
        optimizer: makes the optimizer, such as `optax.adamw`; a function with a parameter `learning_rate`. Of
            `optax.sgd`, `optax.adam` and `optax.adamw`, the run is told the kind and the momentum.
        learning_rate: an `AdvisedLR`; or a number, for loops that call `set_learning_rate`.
        arguments: the other arguments of `optimizer`.

    Returns:
        The optimizer. `update(grads, state, params, value=loss)` needs the training loss. The learning rate
        of the last update is `state.hyperparams["learning_rate"]`.

    Raises:
        InvalidArgumentError: `optimizer` has no parameter `learning_rate`, or is given one twice.
    """
    if not callable(optimizer) or "learning_rate" not in inspect.signature(optimizer).parameters:
        raise InvalidArgumentError(
            "optimizer must be a function with a parameter learning_rate, such as optax.adamw;"
            f" is {optimizer!r:.100}",
            field="optimizer",
        )

    def made(learning_rate: Any) -> Any:
        one = optimizer(learning_rate=learning_rate, **arguments)
        if accumulation_steps == 1:
            return one
        return optax.MultiSteps(one, accumulation_steps).gradient_transformation()

    accumulation_steps = 1
    if isinstance(learning_rate, AdvisedLR):
        accumulation_steps = learning_rate.accumulation_steps
        kind = described(optimizer, arguments)
        learning_rate.run.describe(default_lr=_usual_rate(**kind), **kind)
    return optax.inject_hyperparams(made)(learning_rate=learning_rate)


def described(optimizer: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `optimizer` and the `momentum` of a run's config."""
    bound = inspect.signature(optimizer).bind_partial(**arguments)
    bound.apply_defaults()
    values = bound.arguments
    factory = optimizer
    while isinstance(factory, partial):
        factory = factory.func
    if factory is optax.sgd:
        return sgd_of(values["momentum"] or 0.0, nesterov=values["nesterov"])
    if factory in (optax.adam, optax.adamw):
        return adam_of(values["b1"], decoupled=factory is optax.adamw)
    return dict(OTHER)


def _usual_rate(optimizer: str, momentum: float | None) -> float | None:
    """Return the learning rate that a training without a daemon begins with, if there is a usual one."""
    if optimizer == "other":
        return None
    return 1e-3 if optimizer in {"adam", "adamw"} else 0.1 * (1.0 - (momentum or 0.0))
