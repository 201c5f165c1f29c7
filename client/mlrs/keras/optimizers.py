"""What a run is told of an optimizer of Keras, and which trainings cannot be advised."""

from __future__ import annotations

from typing import Any

import keras

from mlrs.adapters import OTHER, adam_of, sgd_of
from mlrs.errors import InvalidArgumentError, UsageError


def describe(optimizer: Any) -> dict[str, Any]:
    """Return the `optimizer` and the `momentum` of a run's config, read off an optimizer.

    SGD, Adam and AdamW are recognized, with their subclasses and under loss scaling; any other is `other`.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if isinstance(optimizer, keras.optimizers.Adam):
        is_decoupled = isinstance(optimizer, keras.optimizers.AdamW) or optimizer.weight_decay is not None
        return adam_of(optimizer.beta_1, decoupled=is_decoupled)
    if isinstance(optimizer, keras.optimizers.SGD):
        return sgd_of(optimizer.momentum, nesterov=optimizer.nesterov)
    return dict(OTHER)


def accumulation_of(optimizer: Any) -> int:
    """Return the number of batches in an update."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return int(inner.gradient_accumulation_steps or 1)


def check_advisable(model: Any) -> None:
    """Check that a compiled model's batches can be advised one by one.

    Raises:
        UsageError: several batches are one call, or several processes train one model.
        InvalidArgumentError: the learning rate follows a schedule.
    """
    if model.steps_per_execution != 1:
        raise UsageError(
            f"steps_per_execution is {model.steps_per_execution}: Keras then shows neither the loss of each"
            " batch nor a place to set its learning rate. Compile the model with steps_per_execution=1"
        )
    if not isinstance(model.optimizer.learning_rate, keras.Variable):
        raise InvalidArgumentError(
            "the optimizer's learning rate is a schedule, which AdvisedLR cannot set. Make the optimizer with"
            " a number, such as learning_rate=1e-3",
            field="learning_rate",
        )
    if _processes() > 1:
        raise UsageError("AdvisedLR for Keras works in one process, with any number of its devices")


def _processes() -> int:
    """Return the number of processes that train together."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return int(jax.process_count())
    if backend == "torch":
        from torch import distributed

        is_shared = distributed.is_available() and distributed.is_initialized()
        return distributed.get_world_size() if is_shared else 1
    return 1
