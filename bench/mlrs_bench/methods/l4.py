"""L4: steps as long as the linearized loss needs to fall by a share of what is left.

    lr = alpha (L - gamma L_min) / (<g, v> + epsilon)

with g the average gradient, v the update per unit of LR, and L_min the least loss so far, which is
forgotten slowly. Rolinek and Martius, L4: Practical loss-based stepsize adaptation for deep learning,
NeurIPS 2018, algorithm 1; constants as there. v = g is L4Mom, for SGD with momentum; v = g over the
root of the mean squared gradient is L4Adam, for AdamW. Weight decay is the row's: in the first, part of
the function that is minimized, so of both L and g; in the second decoupled, so of neither.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mlrs_bench.methods.method import Training

ALPHA = 0.15
"""The share of the remaining loss that a step is to remove."""
GAMMA = 0.9
"""The share of the least loss so far that counts as reachable."""
FIRST_GAMMA = 0.75
"""The share of the first loss that counts as the least one at the first step."""
FORGET = 1000.0
"""Steps in which the least loss is forgotten."""
MOMENT_STEPS = 10.0
"""Steps over which gradients are averaged."""
SQUARE_STEPS = 1000.0
"""Steps over which squared gradients are averaged."""
EPSILON = 1e-12
"""Keeps the division from 0."""
ADAM_EPSILON = 1e-8
"""Keeps the division by the root of the squares from 0."""


class L4:
    """L4Mom or L4Adam, by the row's optimizer."""

    def __init__(self, training: Training) -> None:
        self._parameters = [each for each in training.network.parameters() if each.requires_grad]
        self._adaptive = training.rule.name == "adamw"
        self._weight_decay = training.weight_decay
        self._first = [torch.zeros_like(each) for each in self._parameters]
        self._second = [torch.zeros_like(each) for each in self._parameters]
        self._steps = 0
        self._loss = self._least = 0.0
        self.held = self.spent = 0

    def observe(self, step: int, loss: float) -> None:
        """Take the loss, and the least so far."""
        self._loss = loss if self._adaptive else loss + self._penalty()
        self._least = min(self._least, self._loss) if step else FIRST_GAMMA * self._loss

    @torch.no_grad()
    def update(self) -> float:
        """Average the gradients, choose the LR, move the weights."""
        self._steps += 1
        means, directions = self._directions([each.grad for each in self._parameters])
        along = sum(
            float(torch.dot(a.flatten(), b.flatten())) for a, b in zip(means, directions, strict=True)
        )
        lr = ALPHA * (self._loss - GAMMA * self._least) / (along + EPSILON)
        self._least *= 1 + 1 / FORGET
        for parameter, direction in zip(self._parameters, directions, strict=True):
            if self._adaptive:
                parameter.mul_(1 - lr * self._weight_decay)
            parameter.sub_(direction, alpha=lr)
        return lr

    def finish(self, refresh: Callable[[], None]) -> None:
        """Do nothing."""

    @torch.no_grad()
    def _penalty(self) -> float:
        """Return the function whose gradient the weight decay is, at the weights now."""
        return 0.5 * self._weight_decay * sum(float(each.square().sum()) for each in self._parameters)

    def _directions(self, gradients: list[Tensor | None]) -> tuple[list[Tensor], list[Tensor]]:
        """Return g and v after another gradient of each parameter."""
        keep, keep_square = 1 - 1 / MOMENT_STEPS, 1 - 1 / SQUARE_STEPS
        means, directions = [], []
        for index, parameter in enumerate(self._parameters):
            gradient = gradients[index]
            if gradient is None:
                gradient = torch.zeros_like(parameter)
            if not self._adaptive:
                gradient = gradient + self._weight_decay * parameter
            mean = self._first[index].lerp_(gradient, 1 - keep) / (1 - keep**self._steps)
            direction = mean
            if self._adaptive:
                self._second[index].lerp_(gradient.square(), 1 - keep_square)
                square = self._second[index] / (1 - keep_square**self._steps)
                direction = mean / (square.sqrt() + ADAM_EPSILON)
            means.append(mean)
            directions.append(direction)
        return means, directions
