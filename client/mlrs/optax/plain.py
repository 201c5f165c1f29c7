"""A learning rate in an optimizer's state: to be read, and set by loops that ask for it themselves."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlrs.errors import InvalidArgumentError, UsageError

State = TypeVar("State")


def get_learning_rate(opt_state: Any) -> Any:
    """Return the learning rate in an optimizer's state, that of its last update, for a log.

    Args:
        opt_state: the state of an optimizer that `advised` or `optax.inject_hyperparams` made; it may be a
            part of other states, as under `optax.chain`.

    Raises:
        InvalidArgumentError: the state holds no learning rate, or several.
    """
    found = optax.tree_utils.tree_get_all_with_path(opt_state, "learning_rate", filtering=_is_number)
    if len(found) != 1:
        raise InvalidArgumentError(
            f"opt_state must hold one learning rate, and holds {len(found)}; make the optimizer with"
            " mlrs.optax.advised or optax.inject_hyperparams",
            field="opt_state",
        )
    return found[0][1]


def set_learning_rate(opt_state: State, learning_rate: Any) -> State:
    """Return an optimizer's state with another learning rate, of the same type and shape as the one it has.

        optimizer = advised(optax.adamw, 1e-3)
        opt_state = optimizer.init(params)
        ...
        opt_state = set_learning_rate(opt_state, run.next_lr(step, loss))

    A compiled update that gets the state as an argument is not compiled again.

    Args:
        opt_state: the state of an optimizer that was made with a number as its learning rate; otherwise as
            for `get_learning_rate`.
        learning_rate: a number; or an array of numbers, one for each member of a population, if the state
            comes from `jax.vmap(optimizer.init)`.

    Raises:
        InvalidArgumentError: as `get_learning_rate`, or the learning rate is of another shape.
        UsageError: the optimizer has a schedule, which would set it again; or the state is traced and the
            learning rate is not: it would be compiled in as a constant.
    """
    old = get_learning_rate(opt_state)
    if optax.tree_utils.tree_get_all_with_path(opt_state, "learning_rate", filtering=_is_schedule):
        raise UsageError("set_learning_rate: the optimizer has a schedule; make it with a number instead")
    if isinstance(old, jax.core.Tracer) and not isinstance(learning_rate, jax.core.Tracer):
        raise UsageError(
            "set_learning_rate: the optimizer's state is traced, and the learning rate is a number, which"
            " would be compiled in as a constant. Set it outside the compiled function, or make it an"
            " argument of that"
        )
    new = jnp.asarray(learning_rate, dtype=jnp.asarray(old).dtype)
    if new.shape != jnp.shape(old):
        raise InvalidArgumentError(
            f"learning_rate has shape {new.shape}, and that of the state {jnp.shape(old)}",
            field="learning_rate",
        )
    changed: State = optax.tree_utils.tree_set(opt_state, _is_number, learning_rate=new)
    return changed


def _is_number(_: Any, value: Any) -> bool:
    return isinstance(value, (jax.Array, np.ndarray, float))


def _is_schedule(_: Any, value: Any) -> bool:
    return isinstance(value, tuple)  # the state of a schedule
