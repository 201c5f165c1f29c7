"""Loops that ask for the learning rate themselves set it in the optimizer's state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mlrs
from mlrs.errors import InvalidArgumentError, UsageError
from tests.support.frameworks import framework

jax = framework("jax")
optax = framework("optax")

import jax.numpy as jnp  # noqa: E402 # once it is known to be there

from mlrs.optax import AdvisedLR, advised, get_learning_rate, set_learning_rate  # noqa: E402
from tests.support.trainings.optax_training import BATCHES, loss_of  # noqa: E402


class Traced:
    """A step that counts how often it is traced."""

    def __init__(self) -> None:
        self.optimizer = optax.chain(optax.clip(1.0), advised(optax.sgd, 0.5, momentum=0.9))
        self.traces = 0

    def __call__(self, params: Any, opt_state: Any, batch: Any) -> Any:
        """Return the parameters and the state after an update."""
        self.traces += 1
        grads = jax.grad(loss_of)(params, batch)
        updates, opt_state = self.optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state


def test_one_trace(advisor: mlrs.Advisor) -> None:
    """Learning rates of a plain loop are used as they are, and nothing is compiled again."""
    run = advisor.run("plain", memory=False, horizon=10, optimizer="momentum")
    traced = Traced()
    compiled, params = jax.jit(traced), {"weights": jnp.ones(3)}
    opt_state = traced.optimizer.init(params)
    rates, used = [], []
    for step, batch in enumerate(BATCHES[:6]):
        rates.append(np.float32(run.next_lr(step, float(loss_of(params, batch)))))
        before = params
        opt_state = set_learning_rate(opt_state, rates[-1])
        params, opt_state = compiled(params, opt_state, batch)
        used.append(get_learning_rate(opt_state))
        assert float(jnp.abs(params["weights"] - before["weights"]).max()) > 0
    assert used == rates
    assert len(set(rates)) == 6
    assert traced.traces == 1


def test_a_sweep_under_vmap(advisor: mlrs.Advisor) -> None:
    """A population under `jax.vmap` takes a vector of learning rates, each member its own, in one trace."""
    members, traced = 4, Traced()
    sweep = advisor.sweep(
        [f"member-{one}" for one in range(members)],
        horizon=10,
        initial_lr=[0.01, 0.02, 0.04, 0.08],
        on_existing="restart",
    )
    params = {"weights": jnp.ones((members, 3))}
    opt_state = jax.vmap(traced.optimizer.init)(params)
    compiled = jax.jit(jax.vmap(traced, in_axes=(0, 0, None)))
    losses_of = jax.jit(jax.vmap(loss_of, in_axes=(0, None)))
    for step, batch in enumerate(BATCHES[:4]):
        rates = sweep.next_lrs(step, np.asarray(losses_of(params, batch)))
        opt_state = set_learning_rate(opt_state, rates)
        assert get_learning_rate(opt_state).tolist() == rates.astype(np.float32).tolist()
        params, opt_state = compiled(params, opt_state, batch)
    assert len({tuple(row) for row in params["weights"].tolist()}) == members
    assert traced.traces == 1
    sweep.detach()


def test_a_number_that_would_be_compiled_in() -> None:
    """To set a Python number within compiled code is refused: it would be a constant there."""
    traced = Traced()
    opt_state = traced.optimizer.init(jnp.ones(3))
    with pytest.raises(UsageError, match="compiled in as a constant"):
        jax.jit(lambda state: set_learning_rate(state, 0.1))(opt_state)
    changed = jax.jit(set_learning_rate)(opt_state, 0.1)
    assert float(get_learning_rate(changed)) == np.float32(0.1)


def test_states_that_hold_no_number(advisor: mlrs.Advisor) -> None:
    """A state without a learning rate, with a scheduled one or with one of another shape is refused."""
    weights = jnp.ones(3)
    with pytest.raises(InvalidArgumentError, match="holds 0"):
        set_learning_rate(optax.sgd(0.1).init(weights), 0.1)
    with pytest.raises(InvalidArgumentError, match="shape"):
        set_learning_rate(advised(optax.sgd, 0.1).init(weights), np.ones(2))
    for schedule in (optax.constant_schedule(0.1), AdvisedLR("optax", advisor=advisor)):
        with pytest.raises(UsageError, match="has a schedule"):
            set_learning_rate(advised(optax.sgd, schedule).init(weights), 0.1)
