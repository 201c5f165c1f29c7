"""Adam, compiled, against torch's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mlrs_core.adapting.adam import MAX_WEIGHT, direction, put

Array = npt.NDArray[np.floating]


def follow(dtype: type, gradients: npt.NDArray[np.float64], weight_decay: float) -> tuple[Array, Array]:
    """Return the weights after some gradients, ours kept in a precision, and torch's in double."""
    rng = np.random.default_rng(1)
    weights = rng.normal(size=gradients.shape[1]).astype(np.float32).astype(dtype)
    first, second, move = np.zeros_like(weights), np.zeros_like(weights), np.empty(len(weights))
    theirs = torch.tensor(weights.astype(np.float64), requires_grad=True)
    adam = torch.optim.Adam([theirs], lr=1e-3, weight_decay=weight_decay)
    for count, gradient in enumerate(gradients, 1):
        assert direction(weights, first, second, gradient, -2.0, count, 1e-3, weight_decay, move)
        before = weights.copy()
        if dtype is np.float32:
            put(weights, before, move, 1.0)
        else:
            weights += move
        theirs.grad = torch.from_numpy(-2.0 * gradient)
        adam.step()
    return weights, theirs.detach().numpy()


@pytest.mark.parametrize("weight_decay", [0.0, 1e-4, 0.1])
@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6])
def test_steps_are_torchs(scale: float, weight_decay: float) -> None:
    """200 steps are within 1e-12 of torch's in double precision, and within 1e-6 as they are kept."""
    gradients = scale * np.random.default_rng(0).normal(size=(200, 40))
    ours, theirs = follow(np.float64, gradients, weight_decay)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)
    ours, theirs = follow(np.float32, gradients, weight_decay)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("gradient", [0.0, np.nan, np.inf])
def test_nothing_comes_of_nothing(gradient: float) -> None:
    """A gradient that is 0, or not finite, leaves moments alone, weight decay or not."""
    weights, first, second = np.ones(3, np.float32), np.ones(3, np.float32), np.ones(3, np.float32)
    gradients = np.full(3, gradient)
    assert not direction(weights, first, second, gradients, 1.0, 1, 1e-3, 0.1, np.empty(3))
    assert (first == 1).all()
    assert (second == 1).all()


def test_huge_gradients_fit() -> None:
    """Gradients of 1e300 move weights as any others do, and moments stay finite."""
    weights, first, second = np.zeros(3, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)
    move = np.empty(3)
    for count in range(1, 50):
        assert direction(weights, first, second, np.array([1e300, 2.0, 0.0]), 1.0, count, 1e-3, 0.0, move)
        assert np.isfinite(np.concatenate([first, second, move])).all()
        assert move[0] == pytest.approx(-1e-3, rel=1e-3)


def test_weights_stay_those_of_a_model() -> None:
    """No move takes a weight beyond what a model's may be."""
    weights = np.array([0.9 * MAX_WEIGHT, -0.9 * MAX_WEIGHT, 0.0], np.float32)
    put(weights, weights.copy(), np.array([1e9, -1e9, 5.0]), 1.0)
    assert weights.tolist() == [MAX_WEIGHT, -MAX_WEIGHT, 5.0]
