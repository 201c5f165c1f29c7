"""Alignments and directions of any framework."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs import meta
from mlrs.errors import InvalidArgumentError


class Layer(NamedTuple):
    """A part of a tree."""

    weight: Any
    bias: Any


def tree(seed: int) -> dict[str, Any]:
    """Return a tree of arrays."""
    chance = np.random.default_rng(seed)
    return {
        "layers": [Layer(chance.normal(size=(3, 4)), chance.normal(size=3)), (chance.normal(size=2),)],
        "scale": chance.normal(),
    }


def leaves(tree_: Any) -> list[Any]:
    """Return the arrays of a tree, in order."""
    if isinstance(tree_, dict):
        return [leaf for one in tree_.values() for leaf in leaves(one)]
    if isinstance(tree_, (list, tuple)):
        return [leaf for one in tree_ for leaf in leaves(one)]
    return [np.asarray(tree_)]


def test_alignment_is_the_dot_product_of_all_leaves() -> None:
    """The alignment is the dot product of both trees laid out flat, in float64 whatever they hold."""
    one, other = tree(0), tree(1)
    flat = [np.concatenate([leaf.ravel() for leaf in leaves(side)]) for side in (one, other)]
    assert meta.alignment(one, other) == pytest.approx(float(flat[0] @ flat[1]), rel=1e-12)
    small = np.full(10_000_001, 1e-4, np.float32)  # summed in float32, the last digits are lost
    expected = small.size * float(np.float32(1e-4)) ** 2
    assert meta.alignment([small], [small]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("one", "other", "path"),
    [
        ({"a": 1.0}, {"b": 1.0}, "directions must"),
        ({"a": [1.0, 2.0]}, {"a": [1.0]}, r"directions\['a'\] must"),
        ([np.ones(2)], [np.ones(3)], r"directions\[0\] is of shape \(3,\)"),
        ({"a": [1.0]}, {"a": 1.0}, r"directions\['a'\] must"),
    ],
)
def test_trees_that_differ(one: Any, other: Any, path: str) -> None:
    """Where the trees differ, the error says."""
    with pytest.raises(InvalidArgumentError, match=path):
        meta.alignment(one, other)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["sgd", "momentum", "nesterov", "adam", "adamw"]),
    decay=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 2**16),
)
def test_directions_are_pytorchs(kind: str, decay: float, seed: int) -> None:
    """Steps along the directions, at changing learning rates, are those of PyTorch's optimizers."""
    chance = np.random.default_rng(seed)
    weights = {"w": chance.normal(size=5)}
    theirs = torch.nn.Parameter(torch.tensor(weights["w"]))
    optimizers: dict[str, Any] = {
        "sgd": lambda: torch.optim.SGD([theirs], lr=1.0, weight_decay=decay),
        "momentum": lambda: torch.optim.SGD([theirs], lr=1.0, momentum=0.9, weight_decay=decay),
        "nesterov": lambda: torch.optim.SGD([theirs], 1.0, 0.9, nesterov=True, weight_decay=decay),
        "adam": lambda: torch.optim.Adam([theirs], lr=1.0, weight_decay=decay),
        "adamw": lambda: torch.optim.AdamW([theirs], lr=1.0, weight_decay=decay),
    }
    optimizer = optimizers[kind]()
    state: Any = None
    for _ in range(6):
        gradients, lr = {"w": chance.normal(size=5)}, float(chance.uniform(0.01, 0.5))
        given_: dict[str, Any] = {"weights": weights, "weight_decay": decay}
        if kind == "sgd":
            d = meta.sgd_direction(gradients, **given_)
        else:
            d, state = getattr(meta, f"{kind}_direction")(gradients, state, **given_)
        weights = {"w": weights["w"] - lr * d["w"]}
        optimizer.param_groups[0]["lr"] = lr
        theirs.grad = torch.tensor(gradients["w"])
        optimizer.step()
        np.testing.assert_allclose(weights["w"], theirs.detach().numpy(), rtol=1e-9)


def test_directions_keep_the_trees_shape() -> None:
    """Directions and states are trees like the gradients', named tuples and scalars included."""
    d, state = meta.adam_direction(tree(0))
    assert isinstance(d["layers"][0], Layer)
    assert state.step == 1
    assert [leaf.shape for leaf in leaves(d)] == [leaf.shape for leaf in leaves(tree(0))]
    d, _ = meta.adam_direction(tree(1), state)
    assert meta.alignment(tree(1), d) != 0.0
    with pytest.raises(InvalidArgumentError, match="weights"):
        meta.sgd_direction(tree(0), weight_decay=0.1)


class Quadratic:
    """L(w) = a/2 |w|^2, of which noise is seen; SGD on it."""

    def __init__(self, curvature: float, noise: float, seed: int) -> None:
        self.curvature, self.noise = curvature, noise
        self.chance = np.random.default_rng(seed)
        self.weights = np.ones(4)

    def losses_at(self, rates: Any) -> Any:
        """Return noisy losses after one step at each learning rate."""
        after = (1.0 - np.asarray(rates) * self.curvature) ** 2 * float(self.weights @ self.weights)
        return self.curvature / 2 * after + self.chance.normal(0.0, self.noise, np.shape(rates))

    def alignment_at(self, rate: float) -> float:
        """Return the alignment of a step at a learning rate, without noise."""
        gradient = self.curvature * self.weights
        return meta.alignment(self.curvature * (self.weights - rate * gradient), gradient)


def test_losses_alone_give_the_alignment_without_bias() -> None:
    """The mean of many estimates from noisy losses is the alignment, and their variance what is promised."""
    rate, noise, offsets = 0.1, 0.05, np.tile([-0.1, -0.05, 0.05, 0.1], 4)
    problem = Quadratic(2.0, noise, seed=0)
    estimates = np.array(
        [
            meta.alignment_from_losses(offsets, problem.losses_at(rate * np.exp(offsets)), rate)
            for _ in range(4000)
        ]
    )
    promised = noise / (rate * math.sqrt(len(offsets)) * offsets.std())
    assert estimates.std() == pytest.approx(promised, rel=0.05)
    error = promised / math.sqrt(len(estimates))
    assert abs(estimates.mean() - problem.alignment_at(rate)) < 4 * error
    assert problem.alignment_at(rate) > 4 * error  # so that 0 would not pass


def test_losses_that_tell_nothing() -> None:
    """Runs that were lost are left out; without two offsets there is no slope, and the error says so."""
    found = meta.alignment_from_losses([-0.1, 0.0, 0.1], [1.1, math.nan, 0.9], 0.5)
    assert found == pytest.approx(2.0)
    for offsets, losses in (([0.1, 0.1], [1.0, 2.0]), ([0.1, 0.2], [1.0, math.inf]), ([], [])):
        with pytest.raises(InvalidArgumentError, match="log_lr_offsets"):
            meta.alignment_from_losses(offsets, losses, 0.1)
    with pytest.raises(InvalidArgumentError, match="validation_losses"):
        meta.alignment_from_losses([0.1, 0.2], [1.0], 0.1)
    with pytest.raises(InvalidArgumentError, match="learning_rate"):
        meta.alignment_from_losses([0.1, 0.2], [1.0, 2.0], 0.0)


def test_importing_it_needs_no_framework() -> None:
    """It comes with the base client: importing it imports neither NumPy nor a framework."""
    script = "import sys, mlrs.meta; print('numpy' in sys.modules, 'torch' in sys.modules)"
    ran = subprocess.run(  # our own interpreter
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.split() == ["False", "False"]
