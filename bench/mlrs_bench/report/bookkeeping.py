"""What the trainings cost, how many diverged, and which are missing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from mlrs_bench.cell import Cell
from mlrs_bench.report.losses import diverged, evaluations
from mlrs_bench.report.methods import ADVISED, BEST_TUNED, CONSTANT, TUNED, ordered
from mlrs_bench.report.rows import Row

NEEDED = (ADVISED, CONSTANT, *TUNED)
"""The methods that the figures are about."""


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
    """How many of a method's evaluation trainings diverged, whatever their start."""

    runs: int
    diverged: int


@dataclass(frozen=True)
class Missing:
    """Measurements that the other rows have and these rows lack."""

    what: str
    rows: tuple[str, ...]


def tuning_costs(cells: Iterable[Cell]) -> dict[str, Cost]:
    """Return what the search for base learning rates cost, by method."""
    tuning = [cell for cell in cells if cell.purpose == "tune"]
    return {
        method: _cost([cell for cell in tuning if cell.method == method])
        for method in ordered(cell.method for cell in tuning)
    }


def stabilities(cells: Iterable[Cell]) -> dict[str, Stability]:
    """Return how many evaluation trainings ran and how many diverged, by method."""
    ran = [cell for cell in cells if cell.purpose == "eval"]
    found = {}
    for method in ordered(cell.method for cell in ran):
        own = [cell for cell in ran if cell.method == method]
        found[method] = Stability(len(own), sum(map(diverged, own)))
    return found


def missing(cells: Sequence[Cell], rows: Sequence[Row], tasks: Collection[str]) -> tuple[Missing, ...]:
    """Return what a full table would have and this one lacks: tasks, methods on rows, seeds on rows.

    A method that ran on no row of an optimizer is taken not to work with it, unless every figure
    needs the method.
    """
    measured = {row.task for row in rows}
    found = [Missing(f"task {task}: no evaluation", ()) for task in tasks if task not in measured]
    seeds = {cell.seed for cell in evaluations(cells)}
    for method in ordered({name for row in rows for name in row.losses} - {BEST_TUNED}):
        ran = [row for row in rows if method in row.losses]
        optimizers = {row.optimizer for row in (rows if method in NEEDED else ran)}
        absent = tuple(row.name for row in rows if row not in ran and row.optimizer in optimizers)
        partial = tuple(row.name for row in ran if seeds - row.losses[method].keys())
        found += [Missing(f"{method}: not run", absent)] if absent else []
        found += [Missing(f"{method}: fewer than {len(seeds)} seeds", partial)] if partial else []
    return tuple(found)


def _cost(cells: Sequence[Cell]) -> Cost:
    return Cost(
        rows=len({(cell.task, cell.optimizer) for cell in cells}),
        runs=len(cells),
        steps=sum(cell.horizon for cell in cells),
        seconds=sum(cell.seconds for cell in cells),
    )
