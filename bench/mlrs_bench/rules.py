"""The optimizers whose LR is set, the default LR of each, and the LRs that tuning tries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

MOMENTUM = 0.9
"""The default momentum of SGD."""
BETAS = (0.9, 0.999)
"""The default moments of AdamW."""


@dataclass(frozen=True)
class Rule:
    """An optimizer."""

    name: str
    """Its name in cells."""
    kind: str
    """Its name in the config of a run."""
    momentum: float
    """The momentum in the config of a run; for AdamW, beta 1."""
    default_lr: float
    """The LR that people who know nothing else start from."""
    grid: tuple[float, ...]
    """The base LRs that tuning tries, ascending by half decades."""

    def build(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        """Return PyTorch's optimizer of this rule."""
        if self.name == "sgd":
            return torch.optim.SGD(
                parameters, lr=lr, momentum=self.momentum, weight_decay=weight_decay, fused=True
            )
        return torch.optim.AdamW(parameters, lr=lr, betas=BETAS, weight_decay=weight_decay, fused=True)


def half_decades(first: int, last: int) -> tuple[float, ...]:
    """Return 10**(k/2) for k from `first` to `last`, in two digits: 0.001, 0.0032, 0.01 and so on."""
    return tuple(float(f"{10 ** (k / 2):.2g}") for k in range(first, last + 1))


RULES: dict[str, Rule] = {
    # 0.1 is the default LR of SGD, and with momentum mu its steps add up to 1 / (1 - mu) times as much.
    "sgd": Rule("sgd", "momentum", MOMENTUM, 0.01, half_decades(-6, 0)),
    "adamw": Rule("adamw", "adamw", BETAS[0], 1e-3, half_decades(-8, -3)),
}
"""The optimizers by name."""
