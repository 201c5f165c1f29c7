"""Where optimizers would go, against where they go."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mlrs.errors import InvalidArgumentError
from mlrs.torch.directions import directions, is_known

RATES = st.floats(1e-4, 1.0)
DECAY = st.sampled_from([0.0, 1e-4, 0.3])
FOREACH = st.sampled_from([None, True, False])


def sgds() -> st.SearchStrategy[dict[str, Any]]:
    """Return settings of SGD: with momentum of either kind, or none."""
    common = {"weight_decay": DECAY, "maximize": st.booleans(), "foreach": FOREACH}
    momentum = st.sampled_from([0.1, 0.9])
    return st.one_of(
        st.fixed_dictionaries(common),
        st.fixed_dictionaries({**common, "momentum": momentum, "dampening": st.sampled_from([0.0, 0.5])}),
        st.fixed_dictionaries({**common, "momentum": momentum, "nesterov": st.just(value=True)}),
    )


def adams() -> st.SearchStrategy[dict[str, Any]]:
    """Return settings of Adam and AdamW."""
    return st.fixed_dictionaries(
        {
            "weight_decay": DECAY,
            "maximize": st.booleans(),
            "foreach": FOREACH,
            "amsgrad": st.booleans(),
            "betas": st.sampled_from([(0.9, 0.999), (0.0, 0.9), (0.5, 0.95)]),
            "eps": st.sampled_from([1e-8, 1e-3]),
        }
    )


CASES = st.one_of(
    st.tuples(st.just(torch.optim.SGD), sgds()),
    st.tuples(st.just(torch.optim.Adam), adams()),
    st.tuples(st.just(torch.optim.Adam), adams().map(lambda one: {**one, "decoupled_weight_decay": True})),
    st.tuples(st.just(torch.optim.AdamW), adams()),
)


def backward(model: nn.Module, seed: int) -> None:
    """Give the model gradients."""
    inputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    model.zero_grad()
    dtype = next(model.parameters()).dtype
    model(inputs.to(dtype)).square().sum().backward()


@settings(max_examples=300, deadline=None)
@given(case=CASES, steps=st.integers(0, 4), rate=RATES, ratio=RATES, seed=st.integers(0, 2**16))
def test_the_real_step_goes_there(
    case: tuple[type[torch.optim.Optimizer], dict[str, Any]], steps: int, rate: float, ratio: float, seed: int
) -> None:
    """Whatever an optimizer's settings, its step moves every parameter by lr * d; d moves nothing."""
    kind, given_ = case
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    groups = [
        {"params": list(model[0].parameters()), "lr": rate},
        {"params": list(model[2].parameters()), "lr": rate * ratio},
    ]
    optimizer = kind(groups, **given_)
    for step in range(steps):
        backward(model, seed + step)
        optimizer.step()
    backward(model, seed + steps)
    before = [weight.detach().clone() for weight in model.parameters()]
    state = copy.deepcopy(optimizer.state_dict())
    gradients = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    found = directions(optimizer, [1.0, ratio])
    torch.testing.assert_close(optimizer.state_dict(), state, rtol=0.0, atol=0.0)
    for weight, old, gradient in zip(model.parameters(), before, gradients, strict=True):
        assert torch.equal(weight, old)
        assert weight.grad is not None
        assert torch.equal(weight.grad, gradient)
    optimizer.step()
    for weight, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(old - rate * found[weight], weight.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_single_precision(kind: type[torch.optim.Optimizer]) -> None:
    """In float32 the virtual step is the real one, to a millionth of the parameters' size."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = kind(model.parameters(), lr=0.1, weight_decay=0.01)
    for step in range(5):
        backward(model, step)
        before = [weight.detach().clone() for weight in model.parameters()]
        found = directions(optimizer, [1.0])
        optimizer.step()
        for weight, old in zip(model.parameters(), before, strict=True):
            torch.testing.assert_close(old - 0.1 * found[weight], weight.detach(), rtol=1e-6, atol=1e-6)


def test_parameters_without_a_gradient() -> None:
    """Frozen parameters, and those that the loss does not depend on, have no direction."""
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2)).double()
    model[0].requires_grad_(requires_grad=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    backward(model, 0)
    assert list(directions(optimizer, [1.0])) == list(model[1].parameters())


def test_gradients_that_have_no_alignment() -> None:
    """Sparse and complex gradients are refused, and the message says what to do about them."""
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(InvalidArgumentError, match="sparse=False"):
        directions(torch.optim.SGD(embedding.parameters(), lr=0.1), [1.0])
    weight = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    weight.abs().sum().backward()
    with pytest.raises(InvalidArgumentError, match="complex"):
        directions(torch.optim.SGD([weight], lr=0.1), [1.0])


def test_which_optimizers_are_known() -> None:
    """PyTorch's own three are; a subclass may do anything, and is not."""

    class Mine(torch.optim.SGD):
        """One that steps in its own way."""

    weights = [nn.Parameter(torch.ones(2))]
    assert is_known(torch.optim.AdamW(weights))
    assert not is_known(Mine(weights, lr=0.1))
    assert not is_known(torch.optim.LBFGS(weights))
