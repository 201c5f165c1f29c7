"""A small training whose losses can be made bad, and what the daemon has of its rescue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mlrs.torch import AdvisedLR
from tests.client.fake_daemon import FakeDaemon

HORIZON = 200
"""A copy is replaced after 20 healthy steps."""
OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.1),
    "momentum": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=0.01),
    "lbfgs": lambda weights: torch.optim.LBFGS(weights, lr=0.1, max_iter=3),
}


class Training:
    """A small network with buffers, whose losses can be made bad."""

    def __init__(self, kind: str = "momentum") -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))
        self.optimizer = OPTIMIZERS[kind](self.model.parameters())
        self.x, self.y = torch.randn(8, 3), torch.randn(8, 1)

    def loss(self, *, is_bad: bool = False) -> torch.Tensor:
        """Return the loss, with gradients; a bad one is NaN, and so are they."""
        self.optimizer.zero_grad()
        loss: torch.Tensor = nn.functional.mse_loss(self.model(self.x), self.y)
        loss = loss * math.nan if is_bad else loss
        loss.backward()
        return loss

    def train(self, scheduler: AdvisedLR, steps: int, bad: Sequence[int] = ()) -> None:
        """Take steps as the adapter's documentation says; the losses of some are bad."""
        for step in range(steps):
            scheduler.observe(self.loss(is_bad=step in bad))
            self.optimizer.step()
            scheduler.step()

    def state(self) -> str:
        """Return everything that a step changes, as text of all bits."""
        facts = (self.model.state_dict(), self.optimizer.state_dict()["state"])
        with torch.no_grad():
            return repr(_plain(facts))

    def places(self) -> dict[str, tuple[int, int]]:
        """Return which tensors the model has, and the optimizer's state beside them, and where in memory.

        Without the history of LBFGS, which has other tensors after each step.
        """
        tensors = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        if not isinstance(self.optimizer, torch.optim.LBFGS):
            for number, state in enumerate(self.optimizer.state.values()):
                tensors |= {f"{number}.{name}": part for name, part in state.items() if part is not None}
        return {name: (id(tensor), tensor.data_ptr()) for name, tensor in tensors.items()}

    def is_finite(self) -> bool:
        """Return whether every number of the model is finite."""
        return all(bool(one.isfinite().all()) for one in self.model.state_dict().values())


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.double().tolist()
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def restored(daemon: FakeDaemon, run_id: str = "a") -> list[int]:
    """Return the steps before which a state was restored, as the daemon has them."""
    return [step for step, extras in daemon.runs[run_id].extras.items() if extras.restored]
