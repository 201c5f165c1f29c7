"""Update rules of many copies at once, each at its own learning rate; as `torch.optim` computes them."""

from __future__ import annotations

import torch
from torch import Tensor

from mlrs_core.config import Optimizer

MOMENTUM = 0.9
"""The default mu of SGD with momentum."""
BETAS = (0.9, 0.999)
"""The decay rates of the moments of Adam and AdamW."""
EPSILON = 1e-8
"""The epsilon of Adam and AdamW."""


def default_lr(rule: Optimizer, momentum: float) -> float:
    """Return the learning rate that people start from who know nothing else.

    With momentum mu, SGD's steps add up to 1 / (1 - mu) times as much, so its rate is that much lower.
    """
    match rule:
        case Optimizer.ADAM | Optimizer.ADAMW:
            return 1e-3
        case Optimizer.MOMENTUM | Optimizer.NESTEROV:
            return 0.1 * (1 - momentum)
        case _:
            return 0.1


class UpdateRule:
    """The update rule of some copies, and its buffers."""

    def __init__(self, rule: Optimizer, rows: Tensor, *, momentum: float, weight_decay: float) -> None:
        """Build it for weights of this shape, (n, weights), before their first step."""
        self.rule = rule
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.step = 0
        self.first = torch.zeros_like(rows) if rule is not Optimizer.SGD else None
        adaptive = rule in (Optimizer.ADAM, Optimizer.ADAMW)
        self.second = torch.zeros_like(rows) if adaptive else None

    def apply(self, rows: Tensor, gradients: Tensor, lrs: Tensor) -> Tensor:
        """Move the weights, in place, by one step at learning rates (n,); return the updates, (n, weights).

        AdamW's decay of the weights is not part of the updates.
        """
        self.step += 1
        lr = lrs[:, None]
        if self.weight_decay and self.rule is Optimizer.ADAMW:
            rows.mul_(1 - lr * self.weight_decay)
        elif self.weight_decay:
            gradients = gradients.add(rows, alpha=self.weight_decay)
        updates = self._direction(gradients).mul_(-lr)
        rows.add_(updates)
        return updates

    def _direction(self, gradients: Tensor) -> Tensor:
        """Return the update per unit learning rate, a new tensor."""
        if self.first is None:
            return gradients.clone()
        if self.second is not None:
            return self._adam(gradients, self.first, self.second)
        self.first.mul_(self.momentum).add_(gradients)
        if self.rule is Optimizer.NESTEROV:
            return gradients.add(self.first, alpha=self.momentum)
        return self.first.clone()

    def _adam(self, gradients: Tensor, first: Tensor, second: Tensor) -> Tensor:
        low, high = BETAS
        first.lerp_(gradients, 1 - low)
        second.mul_(high).addcmul_(gradients, gradients, value=1 - high)
        root = second.sqrt().div_((1 - high**self.step) ** 0.5).add_(EPSILON)
        return first.div(root).div_(1 - low**self.step)


def clip(gradients: Tensor, limit: float) -> Tensor:
    """Return the gradients (n, weights), each scaled down to at most this norm."""
    norms = gradients.norm(dim=1, keepdim=True)
    clipped: Tensor = gradients * (limit / (norms + 1e-6)).clamp(max=1.0)
    return clipped
