"""Schedules from many learning rates on one task, and what their results say about every other rate.

Two shapes, each with a warmup, each from rates at steps of 0.375 decades: so a task's regret is known as a
function of the rate that a schedule is scaled by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlrs_train.evolution.sample import log_ratio
from mlrs_train.evolution.trainings.conditions import Conditions
from mlrs_train.shapes import cosine_share

WARMUP = 0.05
"""The share of the horizon in which schedules warm up."""
COOLDOWN = 0.25
"""The share of the horizon in which `wsd` goes down."""
LOWEST, HIGHEST, COUNT = -1.875, 2.625, 13
"""The rates, over the update rule's default one, as powers of ten."""
LOG_RATES = torch.linspace(LOWEST, HIGHEST, COUNT, dtype=torch.float64) * math.log(10)
"""Their natural logarithms, (COUNT,)."""
WORST = 1.5
"""The largest regret that counts."""
FLOOR = 0.01
"""Added to what is reached, in units of the loss before the first step: hundredths of that say little."""
ALIKE = 0.1
"""Where regrets differ by less, which rate is best says little, and the pull is that much weaker."""
CLOSE = 0.03
"""A shape that does this much worse than the other counts e times less."""
PULL = 0.02
"""What is added to a regret per unit of the log-rate off the best: a way back from where all is lost."""


def cosine(progress: float) -> float:
    """Return the rate over its base, down along half a cosine."""
    return _warm(progress) * max(cosine_share(progress, 1.0), 1e-3)


def wsd(progress: float) -> float:
    """Return the rate over its base: warmup, stable, decay as 1 - sqrt (Hägele et al. 2024)."""
    left = max(progress - (1 - COOLDOWN), 0.0) / COOLDOWN
    return _warm(progress) * max(1 - math.sqrt(left), 1e-2)


def _warm(progress: float) -> float:
    return min(1.0, (progress + 1e-3) / WARMUP)


SHAPES: tuple[Callable[[float], float], ...] = (cosine, wsd)
"""The shapes, as functions of the share of the horizon that is over."""


class Teachers:
    """`RatePolicy` of all shapes from all rates, shape by shape."""

    size = len(SHAPES) * COUNT

    def begin(self, conditions: Conditions) -> None:
        """Start under these conditions."""
        self._rates = (conditions.default_lr * LOG_RATES.exp()).float()
        self._horizon = conditions.horizon

    def advise(self, step: int, _losses: Tensor) -> Tensor:
        """Return the learning rates of this step."""
        return torch.cat([self._rates * shape(step / self._horizon) for shape in SHAPES])


YARDSTICK = SHAPES.index(cosine) * COUNT + int(LOG_RATES.abs().argmin())
"""The teacher that needs no tuning: cosine from the default rate."""


@dataclass(frozen=True)
class RegretCurve:
    """What following a shape at a rate costs on one task, in log-loss over the best that was tried."""

    regrets: Tensor
    """The regret of each shape at each of the rates, (shapes, COUNT) float32, from 0 to `WORST`."""
    shares: Tensor
    """How much each shape counts, (shapes,) float32, 1 together: the better, the more."""

    @classmethod
    def of(cls, reached: Tensor, initial: float) -> RegretCurve:
        """Return the curve of what the teachers reached, (Teachers.size,).

        Neighbours are averaged a little: a result is noisy, and the best of many flatters itself.

        Args:
            reached: what the objective made of each.
            initial: the loss before the first step; one that is not finite counts as 0.
        """
        unit = max(initial, 0.0) if math.isfinite(initial) else 0.0
        table = reached.view(len(SHAPES), COUNT).double() + FLOOR * unit
        raw = log_ratio(table, table.min()).clamp(max=WORST)
        inner = (raw[:, :-2] + 2 * raw[:, 1:-1] + raw[:, 2:]) / 4
        smooth = torch.cat([raw[:, :1], inner, raw[:, -1:]], dim=1)
        smooth = smooth - smooth.min()
        return cls(smooth.float(), torch.softmax(-smooth.amin(1) / CLOSE, 0).float())


def log_shares(progress: Tensor) -> Tensor:
    """Return the logarithms of the shapes' rates over their bases, without warmup: (shapes, n) float32.

    Args:
        progress: the shares of the horizon that are over, (n,).
    """
    rows = [[math.log(shape(max(share, WARMUP))) for share in progress.tolist()] for shape in SHAPES]
    return torch.tensor(rows)


def regret(log_lrs: Tensor, shares: Tensor, curves: Sequence[RegretCurve]) -> Tensor:
    """Return what learning rates cost, (runs, ticks), differentiable: linear between the rates tried.

    A rate, divided by a shape's there, is the base rate of a schedule whose regret is known.

    Args:
        log_lrs: log-LRs over the default one, (runs, ticks).
        shares: `log_shares` at the ticks, (runs, shapes, ticks).
        curves: of each run's task.
    """
    regrets = torch.stack([curve.regrets for curve in curves]).to(log_lrs.dtype)
    weights = torch.stack([curve.shares for curve in curves]).to(log_lrs.dtype)
    rates = LOG_RATES.to(log_lrs.dtype)
    bases = log_lrs[:, None, :] - shares
    position = (bases - rates[0]) / (rates[1] - rates[0])
    left = position.detach().floor().clamp(0, COUNT - 2).long()
    between = (position - left).clamp(0, 1)
    costs = torch.lerp(regrets.gather(2, left), regrets.gather(2, left + 1), between)
    off = (bases - rates[regrets.argmin(2)][..., None]).abs()
    pull = PULL * (regrets.amax(2) / ALIKE).clamp(max=1)
    return ((costs + pull[..., None] * off) * weights[..., None]).sum(1)
