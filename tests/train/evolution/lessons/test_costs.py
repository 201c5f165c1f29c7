"""What learning rates cost on a task."""

from __future__ import annotations

import math

import pytest
import torch

from mlrs_train.evolution.lessons.costs import BEYOND, SPACING, cost_at, costs_of
from mlrs_train.evolution.trainings.starts import RATES

PARABOLA = 0.1 * (torch.arange(len(RATES)) - 4.0) ** 2 - 1.3
"""Log-losses of the rates, best at the fifth."""


def at(positions: list[float], costs: torch.Tensor) -> torch.Tensor:
    """Return the costs at some places of the rates, counted from the lowest, (n,)."""
    log_rates = math.log(1e-4) + SPACING * torch.tensor([positions], dtype=torch.float64)
    return cost_at(log_rates, torch.tensor([math.log(1e-4)]), costs[None].double())[0]


def test_the_best_rate_costs_nothing_and_no_rate_more_than_one() -> None:
    """Costs are least at the best rate, and bounded however bad a loss is."""
    costs = costs_of(torch.cat([PARABOLA[:-1], torch.tensor([50.0])]))
    assert costs.argmin() == 4
    assert costs.min() == 0.0
    assert costs.max() < 1.0


def test_a_single_lucky_training_is_not_believed() -> None:
    """A dip of one rate counts less than the same dip of three."""
    flat = torch.zeros(len(RATES))
    lone, wide = flat.clone(), flat.clone()
    lone[3], wide[2:5] = -0.1, -0.1
    assert costs_of(lone).max() < costs_of(wide).max()


def test_costs_between_rates_are_smooth_and_meet_them() -> None:
    """At the rates tried the cost is what was measured; between them it has no kinks."""
    costs = costs_of(PARABOLA)
    torch.testing.assert_close(at(list(range(9)), costs), costs[:9].double(), rtol=0, atol=1e-6)
    fine = at([2 + index / 100 for index in range(500)], costs)
    assert fine.diff().diff().abs().max() < 1e-3


def test_beyond_the_rates_costs_rise() -> None:
    """Past the lowest and the highest rate there is a way back."""
    costs = costs_of(torch.zeros(len(RATES)))
    assert float(at([-2.0], costs)) == pytest.approx(2 * BEYOND, rel=1e-3)
    assert float(at([len(RATES) + 1.0], costs)) == pytest.approx(2 * BEYOND, rel=1e-2)


def test_the_gradient_points_to_the_best_rate() -> None:
    """Below the best rate costs fall with the rate, above it they rise."""
    costs = costs_of(PARABOLA)
    log_rates = (SPACING * torch.tensor([[1.5, 3.2, 5.1, 7.4]])).requires_grad_()
    cost_at(log_rates, torch.zeros(1), costs[None].float()).sum().backward()
    assert log_rates.grad is not None
    assert torch.sign(log_rates.grad[0]).tolist() == [-1, -1, 1, 1]
