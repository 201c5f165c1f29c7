"""The gradient of the validation loss after a virtual step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mlrs_core.networks.paper import GateLayout, PaperSpec
from mlrs_core.networks.paper.reference import PaperNet, State
from mlrs_train.hypergradient.gradient import (
    MetaGradient,
    learning_rate,
    meta_gradient,
    sgd_direction,
    sgd_step,
    value_and_grad,
)
from mlrs_train.tasks import Params

GAMMA, WEIGHT_DECAY = 0.7, 0.05


class Problem:
    """A small nonlinear classifier and a network in the middle of a run, in double precision."""

    def __init__(self, layout: GateLayout, layers: int) -> None:
        torch.manual_seed(3)
        self.net = PaperNet(PaperSpec(hidden_size=6, num_layers=layers, gate_layout=layout)).double()
        self.state: State = [
            (torch.rand(1, 6, dtype=torch.double), torch.rand(1, 6, dtype=torch.double))
            for _ in range(layers)
        ]
        self.params: Params = {
            "hidden": torch.randn(4, 5, dtype=torch.double),
            "out": torch.randn(5, 3, dtype=torch.double),
        }
        self.inputs = torch.randn(2, 12, 4, dtype=torch.double)
        self.targets = torch.randint(3, (2, 12))
        self.loss, gradients = value_and_grad(lambda params: self.loss_on(0, params), self.params)
        self.direction = sgd_direction(self.params, gradients, WEIGHT_DECAY)

    def loss_on(self, part: int, params: Params) -> Tensor:
        """Return the loss on the training (0) or the held-out (1) batch."""
        logits = torch.tanh(self.inputs[part] @ params["hidden"]) @ params["out"]
        return torch.nn.functional.cross_entropy(logits, self.targets[part])

    def validation(self) -> Tensor:
        """Return L_val(w'(phi)), the slow way: with w' differentiable in phi."""
        lr, _ = learning_rate(self.net, self.state, self.loss, GAMMA)
        virtual = {name: w - lr * self.direction[name] for name, w in self.params.items()}
        return self.loss_on(1, virtual)

    def result(self) -> MetaGradient:
        """Return what the code under test gives."""
        return meta_gradient(
            self.net,
            state=self.state,
            loss=self.loss,
            gamma=GAMMA,
            params=self.params,
            direction=self.direction,
            validation_loss=lambda params: self.loss_on(1, params),
        )


@pytest.fixture(params=[("ifgo", 1), ("ifog", 1), ("ifgo", 2)], ids=lambda p: f"{p[0]}-{p[1]}")
def problem(request: pytest.FixtureRequest) -> Problem:
    """A problem for each gate layout, and for stacked layers."""
    return Problem(*request.param)


def test_alignment_is_autograd(problem: Problem) -> None:
    """The alignment identity gives what autograd gives through the whole virtual step."""
    expected = torch.autograd.grad(problem.validation(), list(problem.net.parameters()))
    for ours, theirs in zip(problem.result().gradients, expected, strict=True):
        assert torch.linalg.norm(ours - theirs) <= 1e-6 * torch.linalg.norm(theirs)


def test_alignment_is_finite_differences(problem: Problem) -> None:
    """Along random directions in phi, the gradient gives the measured slope."""
    result, width = problem.result(), 1e-5
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        weights = list(problem.net.parameters())
        along = [torch.randn(w.shape, generator=generator, dtype=torch.double) for w in weights]
        values = []
        for change in (width, -2 * width):  # to one side, then to the other
            with torch.no_grad():
                for weight, direction in zip(weights, along, strict=True):
                    weight.add_(direction, alpha=change)
            values.append(problem.validation().item())
        with torch.no_grad():
            for weight, direction in zip(weights, along, strict=True):
                weight.add_(direction, alpha=width)
        slope = (values[0] - values[1]) / (2 * width)
        ours = sum((g * d).sum().item() for g, d in zip(result.gradients, along, strict=True))
        assert ours == pytest.approx(slope, rel=1e-6)


def test_alignment_is_the_slope_along_the_direction(problem: Problem) -> None:
    """The alignment is minus the derivative of the validation loss in the learning rate."""
    lr, _ = learning_rate(problem.net, problem.state, problem.loss, GAMMA)
    width = 1e-5
    above, below = (
        problem.loss_on(1, sgd_step(problem.params, problem.direction, lr.item() + change)).item()
        for change in (width, -width)
    )
    assert problem.result().alignment == pytest.approx(-(above - below) / (2 * width), rel=1e-6)


def test_nothing_is_moved(problem: Problem) -> None:
    """A meta gradient changes neither weights nor states, and leaves no gradient behind."""
    before = [weight.clone() for weight in problem.net.parameters()]
    params = {name: w.clone() for name, w in problem.params.items()}
    states = [(hidden.clone(), memory.clone()) for hidden, memory in problem.state]
    problem.result()
    assert all(torch.equal(a, b) for a, b in zip(before, problem.net.parameters(), strict=True))
    assert all(torch.equal(params[name], w) for name, w in problem.params.items())
    for (hidden, memory), (hidden_now, memory_now) in zip(states, problem.state, strict=True):
        assert torch.equal(hidden, hidden_now)
        assert torch.equal(memory, memory_now)
    assert all(weight.grad is None for weight in problem.net.parameters())


def test_weight_decay_is_in_the_direction() -> None:
    """The direction of a step is the gradient plus weight decay times the weight."""
    direction = sgd_direction({"w": torch.tensor(2.0)}, {"w": torch.tensor(0.5)}, 0.1)
    assert math.isclose(direction["w"].item(), 0.7, rel_tol=1e-6)
