"""Every architecture of the family: kernel against oracle, shapes, parameters."""

from __future__ import annotations

import numpy as np
import pytest

from mlrs_core.advise import step as step_of
from mlrs_core.config import RunConfig
from mlrs_core.errors import InvalidFieldError, ModelFileError
from mlrs_core.networks import ARCHITECTURES, Architecture, architecture_from_json
from mlrs_core.networks.serving import policy_of
from mlrs_core.policy import RunColumns
from tests.core.networks.families import FAMILIES, SMALL, SPECS, label, random_model, random_weights

EXTREMES = [0.0, -0.0, 5e-324, -300.0, 1e308, -1e308, 1e-6, 0.1, 2.3]
"""Finite losses that no cross-entropy has, and some that one has."""


def test_every_architecture_is_under_test() -> None:
    """An architecture cannot be entered in the table without entering its oracle here."""
    assert FAMILIES.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("gain", [1.0, 3.0])
@pytest.mark.parametrize("spec", SPECS, ids=label)
def test_kernel_agrees_with_oracle(spec: Architecture, gain: float) -> None:
    """Over 500 steps of random losses, state carried, the kernel stays within 1e-6 of the torch module.

    An LR above 1, which random weights of the drift network can give, within as much of itself.
    """
    rng = np.random.default_rng(7)
    n = 3
    weights = random_weights(spec, rng, gain=gain)
    policy, oracle = policy_of(spec, [weights]), FAMILIES[spec.kind].oracle(spec, weights, n)
    runs = RunColumns.of([RunConfig(scale=1.0)] * n)
    states = policy.init_state(n)
    losses = rng.exponential(2.0, (500, n)) * rng.choice([0.01, 1.0, 1.0, -1.0], (500, n))
    for step, row in enumerate(losses):
        lrs, states = step_of(policy, states, np.full(n, step), row, runs)
        expected = oracle(row)
        assert (np.abs(lrs - expected) <= 1e-6 * np.maximum(1.0, expected)).all(), f"step {step}"


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_learning_rates_depend_on_the_losses(spec: Architecture) -> None:
    """The state is carried: the same loss gets another learning rate after another past."""
    policy = random_model(spec).policy()
    runs = RunColumns.of([RunConfig(scale=1.0)] * 2)
    _, states = step_of(policy, policy.init_state(2), np.zeros(2, np.int64), np.array([0.5, 4.0]), runs)
    different = 0
    for step in range(1, 60):  # not at once: a rate may rise as fast as it can after either
        lrs, states = step_of(policy, states, np.full(2, step), np.array([1.0, 1.0]), runs)
        different += lrs[0] != lrs[1]
    assert different


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_step_is_pure(spec: Architecture) -> None:
    """A step changes none of its arguments, and equal arguments give equal bits."""
    policy, rng = random_model(spec).policy(), np.random.default_rng(1)
    n = 13
    runs = RunColumns.of([RunConfig(horizon=None if row % 3 else 90) for row in range(n)])
    states = policy.init_state(n)
    for step in range(40):
        arguments = (states, np.full(n, step), rng.normal(2.0, 3.0, n))
        before = [argument.tobytes() for argument in arguments]
        lrs, moved = step_of(policy, *arguments, runs)
        again, moved_again = step_of(policy, *arguments, runs)
        assert [argument.tobytes() for argument in arguments] == before
        assert (lrs.tobytes(), moved.tobytes()) == (again.tobytes(), moved_again.tobytes())
        assert not np.shares_memory(moved, states)
        states = moved


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_states_are_flat_rows_of_float32(spec: Architecture) -> None:
    """A policy's state is a row of `state_size` float32 a run, and a step keeps shape and type."""
    policy = random_model(spec).policy()
    states = policy.init_state(4)
    lrs, moved = step_of(policy, states, np.zeros(4, np.int64), np.ones(4), RunColumns.of([RunConfig()] * 4))
    assert states.shape == moved.shape == (4, policy.state_size)
    assert states.dtype == moved.dtype == np.float32
    assert (lrs.shape, lrs.dtype) == ((4,), np.float64)


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_no_runs_are_a_batch(spec: Architecture) -> None:
    """A batch of no runs gives no learning rates."""
    policy = random_model(spec).policy()
    lrs, states = step_of(policy, policy.init_state(0), np.zeros(0, np.int64), np.zeros(0), RunColumns.of([]))
    assert (len(lrs), states.shape) == (0, (0, policy.state_size))


@pytest.mark.parametrize("magnitude", [1.0, 1e3, 1e9], ids="weights to {:g}".format)
@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_extreme_losses_give_finite_positive_rates(spec: Architecture, magnitude: float) -> None:
    """Any finite loss gets a finite positive learning rate, under any weights that a model may have."""
    rng = np.random.default_rng(3)
    weights = {
        name: (rng.uniform(-1, 1, shape) * magnitude).astype(np.float32)
        for name, shape in spec.weight_shapes().items()
    }
    policy, n = policy_of(spec, [weights]), len(EXTREMES)
    runs = RunColumns.of([RunConfig(num_classes=10 if row % 2 else None) for row in range(n)])
    states = policy.init_state(n)
    for step in range(50):
        lrs, states = step_of(policy, states, np.full(n, step), rng.permutation(EXTREMES), runs)
        assert np.isfinite(lrs).all()
        assert (lrs > 0).all()
        assert np.isfinite(states).all()


@pytest.mark.parametrize("spec", SPECS, ids=label)
def test_json_round_trip(spec: Architecture) -> None:
    """An architecture is rebuilt, equal, from what it says of itself."""
    assert architecture_from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "kind None is unknown"),
        ({"kind": "transformer"}, "'transformer' is unknown; this version knows: drift, paper"),
        ({"kind": ["paper"]}, "is unknown"),
        ({"kind": "paper", "width": 3}, "width"),
        ({"kind": "paper", "hidden_size": 1}, "hidden_size: must be a whole number, 2 to 1024, is 1"),
        ({"kind": "paper", "hidden_size": 1025}, "hidden_size"),
        ({"kind": "paper", "hidden_size": 50.0}, "hidden_size"),
        ({"kind": "paper", "hidden_size": "50"}, "hidden_size"),
        ({"kind": "paper", "num_layers": 0}, "num_layers"),
        ({"kind": "paper", "num_layers": 9}, "num_layers"),
        ({"kind": "paper", "num_layers": True}, "num_layers"),
        ({"kind": "paper", "gate_layout": "iofg"}, "gate_layout: must be one of ifgo, ifog, is 'iofg'"),
        ({"kind": "paper", "gate_layout": {}}, "gate_layout"),
        ({"kind": "paper", "scale_rule": None}, "scale_rule"),
        ({"kind": "paper", "max_loss": 0}, "max_loss: must be a number above 0, at most 1e6, is 0"),
        ({"kind": "paper", "max_loss": 2e6}, "max_loss"),
        ({"kind": "paper", "max_loss": float("nan")}, "max_loss"),
        ({"kind": "paper", "max_loss": "1"}, "max_loss"),
        ({"kind": "paper", "max_loss": True}, "max_loss"),
    ],
)
def test_bad_parameters_are_refused(fields: dict[str, object], said: str) -> None:
    """An unknown kind, and a parameter unknown or out of range, is refused by name."""
    with pytest.raises(ModelFileError, match=said):
        architecture_from_json(fields)


def test_spec_names_its_bad_field() -> None:
    """A spec built by hand says which field is out of range."""
    with pytest.raises(InvalidFieldError) as caught:
        ARCHITECTURES["paper"](hidden_size=0)
    assert caught.value.field == "hidden_size"


def test_paper_has_the_parameters_of_the_paper() -> None:
    """At hidden size 50 the network of the paper has 11,776 weights."""
    assert random_model(ARCHITECTURES["paper"](), snapshots=1).parameters == 11_776


def test_gate_layouts_differ_by_order_and_forget_offset() -> None:
    """The same weights mean another network under the other layout; nothing guesses which."""
    weights = random_weights(ARCHITECTURES["paper"](), np.random.default_rng(0))
    runs = RunColumns.of([RunConfig(scale=1.0)])
    start = (np.zeros((1, 103), np.float32), np.zeros(1, np.int64), np.ones(1), runs)
    rates = {
        layout: step_of(policy_of(ARCHITECTURES["paper"](gate_layout=layout), [weights]), *start)[0]
        for layout in ("ifgo", "ifog")
    }
    assert rates["ifgo"] != rates["ifog"]


def test_a_paper_model_holds_the_bound_of_its_losses() -> None:
    """A paper model with another bound of losses is distinguished by its JSON, and takes losses within it."""
    first, other = ARCHITECTURES["paper"](hidden_size=5), ARCHITECTURES["paper"](hidden_size=5, max_loss=3)
    assert "max_loss" not in first.to_json()
    assert other.to_json()["max_loss"] == 3.0
    assert architecture_from_json(other.to_json()) == other
    weights = random_weights(first, np.random.default_rng(0))
    runs = RunColumns.of([RunConfig(scale=1.0)])

    def rate(spec: Architecture, loss: float) -> float:
        policy = policy_of(spec, [weights])
        lrs, _ = step_of(policy, policy.init_state(1), np.zeros(1, np.int64), np.array([loss]), runs)
        return float(lrs[0])

    assert rate(other, 2.9) == rate(first, 2.9)
    assert rate(other, 1e5) == rate(other, 3.0) == rate(first, 3.0) != rate(first, 1e5)
    assert rate(first, 1e6) == rate(first, 1e9)
