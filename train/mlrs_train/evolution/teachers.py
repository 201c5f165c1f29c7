"""Schedules from many learning rates on one task, and what their results say about every other rate.

Two shapes, each with a warmup, each from rates 0.3 of a decade apart: so a task's regret is known
as a function of the rate that a schedule is scaled by.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mlrs_train.evolution.conditions import Conditions
from mlrs_train.evolution.sample import log_ratio

WARMUP = 0.05
"""The share of the horizon in which schedules warm up."""
COOLDOWN = 0.25
"""The share of the horizon in which `wsd` goes down."""
LOWEST, HIGHEST, COUNT = -2.1, 2.4, 16
"""The rates, over the update rule's usual one, as powers of ten."""
LOG_RATES = torch.linspace(LOWEST, HIGHEST, COUNT, dtype=torch.float64) * math.log(10)
"""Their natural logarithms, (COUNT,)."""
WORST = 1.5
"""The largest regret that counts."""
ALIKE = 0.1
"""Where regrets differ by less, which rate is best says little, and the pull is that much weaker."""
PULL = 0.02
"""What is added to a regret per unit of the log-rate off the best: a way back from where all is lost."""


def cosine(progress: float) -> float:
    """Return the rate over its base, down along half a cosine."""
    return _warm(progress) * max((1 + math.cos(math.pi * progress)) / 2, 1e-3)


def wsd(progress: float) -> float:
    """Return the rate over its base: warmup, stable, decay as 1 - sqrt (Hägele et al. 2024)."""
    left = max(progress - (1 - COOLDOWN), 0.0) / COOLDOWN
    return _warm(progress) * max(1 - math.sqrt(left), 1e-2)


def _warm(progress: float) -> float:
    return min(1.0, (progress + 1e-3) / WARMUP)


SHAPES: tuple[Callable[[float], float], ...] = (cosine, wsd)
"""The shapes, as functions of the share of the horizon that is over."""


class Teachers:
    """`Policy` of all shapes from all rates, shape by shape."""

    size = len(SHAPES) * COUNT

    def begin(self, conditions: Conditions) -> None:
        """Start under these conditions."""
        self._rates = (conditions.default_lr * LOG_RATES.exp()).float()
        self._horizon = conditions.horizon

    def advise(self, step: int, _losses: Tensor) -> Tensor:
        """Return the learning rates of this step."""
        return torch.cat([self._rates * shape(step / self._horizon) for shape in SHAPES])


@dataclass(frozen=True)
class RegretCurve:
    """What following a shape at a rate costs on one task, in log-loss over the best that was tried."""

    shape: int
    """The shape that did best, of `SHAPES`."""
    regrets: Tensor
    """The regret at each of the rates, (COUNT,) float64, from 0 to `WORST`."""

    @classmethod
    def of(cls, reached: Tensor) -> RegretCurve:
        """Return the curve of what the teachers reached, (Teachers.size,).

        Neighbours are averaged a little: a result is noisy, and the best of 16 flatters itself.
        """
        table = reached.view(len(SHAPES), COUNT).double()
        shape, best = int(table.min(1).values.argmin()), table.min()
        raw = log_ratio(table[shape], best).clamp(max=WORST)
        inner = (raw[:-2] + 2 * raw[1:-1] + raw[2:]) / 4
        smooth = torch.cat([raw[:1], inner, raw[-1:]])
        return cls(shape, smooth - smooth.min())

    def at(self, log_rates: Tensor) -> Tensor:
        """Return the regret at other rates, any shape, differentiable: linear in between."""
        place = (log_rates - LOG_RATES[0]) / (LOG_RATES[1] - LOG_RATES[0])
        left = place.detach().floor().clamp(0, COUNT - 2).long()
        share = (place - left).clamp(0, 1)
        off = (log_rates - LOG_RATES[self.regrets.argmin()]).abs()
        pull = PULL * min(1.0, float(self.regrets.max()) / ALIKE)
        return torch.lerp(self.regrets[left], self.regrets[left + 1], share) + pull * off

    def log_share(self, progress: float) -> float:
        """Return the logarithm of the best shape's rate over its base."""
        return math.log(SHAPES[self.shape](progress))
