"""Hypergradient descent: the LR goes along the gradient of the loss with respect to it.

With d the last update per unit of LR and g the gradient now, lr <- lr + beta <g, d>.
Baydin et al., Online Learning Rate Adaptation with Hypergradient Descent, ICLR 2018, algorithms 4 to 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mlrs_bench.methods.method import Training, set_lr

HYPER_LR = {"sgd": 1e-3, "adamw": 1e-7}
"""The paper's beta, by optimizer. Its first LR is the default one here."""
EPSILON = 1e-8
"""AdamW's, as PyTorch has it."""


class HypergradientDescent:
    """The LR by hypergradient descent. It may become negative: the algorithm has no bound."""

    def __init__(self, training: Training) -> None:
        self._optimizer = training.optimizer()
        self._lr = training.base_lr or training.rule.default_lr
        self._hyper_lr = HYPER_LR[training.rule.name]
        self._parameters = list(training.network.parameters())
        self.held = self.spent = 0

    def observe(self, step: int, loss: float) -> None:
        """Take no notice: only gradients count."""

    def update(self) -> float:
        """Move the LR, then the weights."""
        alignment = sum(
            float(torch.dot(parameter.grad.flatten(), direction.flatten()))
            for parameter in self._parameters
            if parameter.grad is not None
            and (direction := _direction(self._optimizer, parameter)) is not None
        )
        self._lr += self._hyper_lr * alignment
        set_lr(self._optimizer, self._lr)
        self._optimizer.step()
        return self._lr

    def finish(self, refresh: Callable[[], None]) -> None:
        """Do nothing."""


def _direction(optimizer: torch.optim.Optimizer, parameter: Tensor) -> Tensor | None:
    """Return the last step of a parameter per unit of LR, downhill; `None` before the first."""
    state: Mapping[str, Any] = optimizer.state[parameter]
    if (buffer := state.get("momentum_buffer")) is not None:
        out: Tensor = buffer
        return out
    if "exp_avg" not in state:
        return None
    beta1, beta2 = optimizer.param_groups[0]["betas"]
    first: Tensor = state["exp_avg"] / (1 - beta1 ** state["step"])
    second: Tensor = state["exp_avg_sq"] / (1 - beta2 ** state["step"])
    return first / (second.sqrt() + EPSILON)
