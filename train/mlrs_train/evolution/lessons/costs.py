"""What a schedule from each learning rate would cost on one task."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mlrs_train.evolution.trainings.starts import RATES

SPACING = math.log(RATES[1] / RATES[0])
"""The distance of neighbouring learning rates, in their logarithm."""
MOST = 3.0
"""The largest log-ratio to the best that counts."""
BEYOND = 0.15
"""What a rate costs beyond those that were tried, for each `SPACING`."""


def costs_of(log_losses: Tensor) -> Tensor:
    """Return what each learning rate costs, (rates,), within 0 and 1, from the log-losses that it led to.

    It is r / (1 + r), with r the log-ratio to the best. Neighbours are averaged a little: a result is noisy,
    and the best of many flatters itself.
    """
    ratios = (log_losses - log_losses.min()).clamp(max=MOST)
    padded = torch.cat([ratios[:1], ratios, ratios[-1:]])
    smooth = 0.2 * padded[:-2] + 0.6 * padded[1:-1] + 0.2 * padded[2:]
    smooth = smooth - smooth.min()
    return smooth / (1 + smooth)


def cost_at(log_rates: Tensor, lowest: Tensor, costs: Tensor) -> Tensor:
    """Return what some learning rates cost, (runs, looks), differentiable: a cubic between the rates tried.

    Args:
        log_rates: logarithms of learning rates, (runs, looks).
        lowest: the logarithm of the lowest rate that was tried, of each run's task, (runs,).
        costs: `costs_of` each run's task, (runs, rates).
    """
    last = costs.shape[1] - 1
    position = (log_rates - lowest[:, None]) / SPACING
    inside = position.clamp(0, last - 1e-3)
    left = inside.detach().floor().long()
    share = inside - left
    before, at, after, beyond = (costs.gather(1, (left + shift).clamp(0, last)) for shift in (-1, 0, 1, 2))
    slope_at, slope_after = 0.5 * (after - before), 0.5 * (beyond - at)
    squared, cubed = share**2, share**3
    between = (
        (2 * cubed - 3 * squared + 1) * at
        + (cubed - 2 * squared + share) * slope_at
        + (3 * squared - 2 * cubed) * after
        + (cubed - squared) * slope_after
    )
    return between + BEYOND * (position - inside).abs()
