"""The whole meta gradient against autograd through the virtual step of a real optimizer."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlrs_core.adapting.state_layout import FRESH
from mlrs_core.config import RunConfig
from mlrs_core.networks import Architecture
from tests.core.adapting.oracles import Seen, adaptive, distance, leaves_of, oracle_of, ours
from tests.core.networks.families import SMALL, label, random_model
from tests.core.runs import Runs

OPTIMIZERS: dict[str, Callable[[list[Tensor]], torch.optim.Optimizer]] = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.1, weight_decay=5e-4),
    "momentum": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=5e-4),
    "nesterov": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda weights: torch.optim.Adam(weights, lr=1e-3),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.1),
}


class Training:
    """A small network in double precision, some steps into its training."""

    def __init__(self, make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> None:
        """Train it for a few steps, with noise."""
        torch.manual_seed(0)
        self.make = make
        self.net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
        self.optimizer = make(list(self.net.parameters()))
        for _ in range(6):
            self._backward(self.net)
            self.optimizer.step()
        self.data = torch.randn(9, 5).double(), torch.randint(3, (9,))

    def _backward(self, net: nn.Module) -> None:
        x, y = torch.randn(9, 5).double(), torch.randint(3, (9,))
        net.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()

    def direction(self) -> dict[str, Tensor]:
        """Return d of the next step: what the optimizer itself takes off the weights at a rate of 1."""
        net = copy.deepcopy(self.net)
        optimizer = self.make(list(net.parameters()))
        optimizer.load_state_dict(self.optimizer.state_dict())
        optimizer.param_groups[0]["lr"] = 1.0
        self._backward(net)
        optimizer.step()
        before = dict(self.net.named_parameters())
        return {name: (before[name] - after).detach() for name, after in net.named_parameters()}

    def validation_loss(self, direction: dict[str, Tensor], rate: Tensor) -> Tensor:
        """Return L_val(w - rate * d)."""
        moved = {name: w.detach() - rate * direction[name] for name, w in self.net.named_parameters()}
        x, y = self.data
        return nn.functional.cross_entropy(torch.func.functional_call(self.net, moved, (x,)), y)

    def alignment(self, direction: dict[str, Tensor], rate: float) -> float:
        """Return what a client sends: the inner product of d and the gradient at w'."""
        moved = {
            name: (w.detach() - rate * direction[name]).requires_grad_()
            for name, w in self.net.named_parameters()
        }
        x, y = self.data
        loss = nn.functional.cross_entropy(torch.func.functional_call(self.net, moved, (x,)), y)
        gradients = torch.autograd.grad(loss, list(moved.values()))
        return sum(
            float((gradient * direction[name]).sum()) for name, gradient in zip(moved, gradients, strict=True)
        )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_alignment_is_all_that_is_needed(spec: Architecture, optimizer: str) -> None:
    """-alignment * d(lr)/d(weights) is within 1e-6 of autograd's derivative of the validation loss."""
    model, training = random_model(spec, 5, snapshots=1), Training(OPTIMIZERS[optimizer])
    policy, oracle, rng = adaptive(model), oracle_of(spec), np.random.default_rng(1)
    runs, compared = Runs(policy, [RunConfig(num_classes=10, initial_lr=1e-3)]), 0
    runs.networks[0] = policy.first_network()
    size = policy._learner.frozen_size
    since_asked: list[Seen] = []
    for step in range(60):
        before, loss = runs.states[:, :size].copy(), float(rng.exponential(2.0))
        runs.advise(step, [loss])
        if runs.states[0, policy.counters_at + FRESH]:
            since_asked.clear()
        since_asked.append(Seen(before, runs.states[:, :size].copy(), loss, step))
        trace, _, lr, gradient = ours(policy, runs.states[0], runs.networks[0], runs.table)
        if trace != 0:
            continue
        compared += 1
        direction, leaves = training.direction(), leaves_of(model.snapshots[0])
        rate = oracle(leaves, since_asked, runs.table)
        rate = rate * (lr / rate.detach())  # w' is where the advised rate leads, to the last digit
        slopes = torch.autograd.grad(training.validation_loss(direction, rate), list(leaves.values()))
        expected = {name: slope.numpy() for name, slope in zip(leaves, slopes, strict=True)}
        alignment = training.alignment(direction, lr)
        assert distance({name: -alignment * part for name, part in gradient.items()}, expected) <= 1e-6
    assert compared >= 3
