"""What the trainings cost, and how many failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlrs_bench.cell import Cell
from mlrs_bench.report.figures.losses import diverged, lost, not_learning
from mlrs_bench.report.figures.methods import ordered


@dataclass(frozen=True)
class Cost:
    """What a number of trainings cost."""

    rows: int
    runs: int
    steps: int
    """The sum of their horizons: a training that diverged is paid for in full."""
    seconds: float


@dataclass(frozen=True)
class Stability:
    """How many of a method's evaluation trainings failed, whatever their start."""

    runs: int
    diverged: int
    lost: int
    """Ended with a test loss that is no number, or above the one before training."""
    not_learning: int
    """Ended within 5 % of the initial test loss or above; most that diverged are among them."""


def tuning_costs(cells: Iterable[Cell]) -> dict[str, Cost]:
    """Return what the search for base learning rates cost, by method."""
    tuning = [cell for cell in cells if cell.purpose == "tune"]
    return {
        method: _cost([cell for cell in tuning if cell.method == method])
        for method in ordered(cell.method for cell in tuning)
    }


def stabilities(cells: Iterable[Cell]) -> dict[str, Stability]:
    """Return how many evaluation trainings ran and how many failed, by method."""
    ran = [cell for cell in cells if cell.purpose == "eval"]
    found = {}
    for method in ordered(cell.method for cell in ran):
        own = [cell for cell in ran if cell.method == method]
        found[method] = Stability(
            len(own), sum(map(diverged, own)), sum(map(lost, own)), sum(map(not_learning, own))
        )
    return found


def _cost(cells: Sequence[Cell]) -> Cost:
    return Cost(
        rows=len({(cell.task, cell.optimizer) for cell in cells}),
        runs=len(cells),
        steps=sum(cell.horizon for cell in cells),
        seconds=sum(cell.seconds for cell in cells),
    )
