"""Trainings whose every step changes all that a step can change, and what compares them to the bit."""

from __future__ import annotations

import copy
import gc
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from mlrs.torch.search.saved_state import SavedState

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.1),
    "momentum": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda weights: torch.optim.Adam(weights, lr=0.01, amsgrad=True),
    "adamw-fused": lambda weights: torch.optim.AdamW(weights, lr=0.01, fused=True),
    "adam-tensor-lr": lambda weights: torch.optim.Adam(weights, lr=torch.tensor(0.01)),
    "nadam": lambda weights: torch.optim.NAdam(weights, lr=0.01),
    "lbfgs": lambda weights: torch.optim.LBFGS(weights, lr=0.1, max_iter=3),
}


class Quantizer(nn.Module):
    """A layer that replaces its buffers, one of which is not there at first."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("last", None)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 # its name in PyTorch
        """Return the input, and follow its mean in training."""
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * input.detach().mean(0)
            self.last = input.detach()
        return input - self.mean


def network(seed: int = 0) -> nn.Sequential:
    """Return a network that changes in all ways: in weights, in buffers of two kinds, and by chance."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), Quantizer(), nn.Dropout(0.3), nn.Tanh(), nn.Linear(4, 2)
    )


class Training:
    """A training whose every step draws from all generators."""

    def __init__(self, kind: str = "momentum", *, scaled: bool = False) -> None:
        self.model = network()
        self.optimizer = OPTIMIZERS[kind](
            [
                {"params": [*self.model[0].parameters(), *self.model[1].parameters()]},
                {"params": [*self.model[5].parameters()]},
            ]
            if kind != "lbfgs"
            else self.model.parameters()
        )
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2) if scaled else None
        random.seed(1)
        np.random.seed(2)  # noqa: NPY002 # training loops use it

    def loss(self) -> torch.Tensor:
        """Return the loss of a batch, which all three generators have a part in."""
        shift = random.random() + np.random.random()  # noqa: NPY002, S311
        inputs = torch.randn(8, 3) + shift
        loss: torch.Tensor = self.model(inputs).square().mean()
        return loss

    def step(self) -> float:
        """Make a step."""

        def closure() -> float:
            self.optimizer.zero_grad()
            loss = self.loss()
            if self.scaler is None:
                loss.backward()
            else:
                self.scaler.scale(loss).backward()
            return float(loss.detach())

        if isinstance(self.optimizer, torch.optim.LBFGS):
            return float(self.optimizer.step(closure))
        loss = closure()
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss

    def train(self, steps: int) -> list[float]:
        """Make some steps; return their losses."""
        return [self.step() for _ in range(steps)]

    def save(self, *also: Any, save_to: Any = "device") -> SavedState:
        """Save the state."""
        return SavedState(self.model, self.optimizer, self.scaler, also, save_to)

    def bits(self) -> dict[str, Any]:
        """Return a copy of everything, in a form that can be compared by `same`."""
        weights = dict(self.model.named_parameters())
        return copy.deepcopy(
            {
                "weights": {name: weight.detach() for name, weight in weights.items()},
                "buffers": {
                    f"{place}.{name}": buffer
                    for place, part in self.model.named_modules()
                    for name, buffer in part._buffers.items()
                },
                "gradients": {name: weight.grad for name, weight in weights.items()},
                "modes": [part.training for part in self.model.modules()],
                "optimizer": self.optimizer.state_dict(),
                "scaler": None if self.scaler is None else self.scaler.state_dict(),
                "torch": torch.get_rng_state(),
                "python": random.getstate(),
                "numpy": np.random.get_state(),  # noqa: NPY002
            }
        )


def same(one: Any, other: Any) -> bool:
    """Return whether nested values are equal, tensors to the bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        kind = (one.dtype, one.shape, one.device)
        is_same = torch.equal(one.nan_to_num(123.0), other.nan_to_num(123.0))
        return kind == (other.dtype, other.shape, other.device) and is_same
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) and type(one) is type(other)


def alive(*shapes: tuple[int, ...]) -> int:
    """Return how many tensors of some shapes there are in this process."""
    tensors = [one for one in gc.get_objects() if type(one) in {torch.Tensor, nn.Parameter}]
    return sum(tuple(one.shape) in shapes for one in tensors)


@contextmanager
def own_generators() -> Iterator[None]:
    """Leave the random number generators, and with them other tests, as they are."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
