"""The numbers of the memory's report: final test losses, beside those of tuned schedules and of a search."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mlrs_bench.cell import Cell
from mlrs_bench.memory.lineage import Lineage
from mlrs_bench.memory.scenario import BEFORE_CHANGE, RUNS, Scenario
from mlrs_bench.report.figures.bootstrap import Estimate
from mlrs_bench.report.figures.comparisons import Matchup, compare, log_ratio, matchup
from mlrs_bench.report.figures.losses import evaluations, final_loss, lost
from mlrs_bench.report.figures.methods import ADVISED, CONSTANT, TUNED
from mlrs_bench.report.figures.rows import Row, rows_of

YARDSTICKS = (CONSTANT, *TUNED, ADVISED, "search-uncharged")
"""What runs with memory are compared with, on the same seeds."""
CHANGES = (Scenario.HORIZON, Scenario.BATCH_SIZE, Scenario.REPLACED)
"""The sequences in which something changes."""
SEED = 0
"""The seed of the bootstrap."""


def method(scenario: Scenario, number: int) -> str:
    """Return what the run of a sequence with this number is called among methods."""
    return f"{scenario} run {number}"


@dataclass(frozen=True)
class Standing:
    """How a method did over all rows."""

    method: str
    rows: int
    gap: Estimate | None
    """Interquartile mean of gap closed."""
    median: float | None
    """Median of ln(L / L of the best tuned schedule) over rows."""
    near: float | None
    """Share of rows within 2 % of the best tuned schedule."""
    wins: Matchup
    """Against the search."""


@dataclass(frozen=True)
class Exploring:
    """What runs that explore cost, against the first run of their sequence."""

    scenario: Scenario
    runs: int
    mean: float
    """The mean of ln(L / L of run 1)."""
    median: float
    worse: float
    """The share of runs that end more than 10 % above run 1."""
    lost: int
    """The number of runs that diverged, or ended above the loss before training, where run 1 did not."""
    lost_like_first: int
    """The number of those where run 1 did."""


@dataclass(frozen=True)
class Change:
    """The first run after something has changed, against one that begins with a search."""

    scenario: Scenario
    rows: int
    ratio: Estimate | None
    """Interquartile mean of ln(L / L of the search)."""
    wins: Matchup


@dataclass(frozen=True)
class Figures:
    """All numbers."""

    rows: tuple[Row, ...]
    standings: tuple[Standing, ...]
    exploring: tuple[Exploring, ...]
    changes: tuple[Change, ...]
    repetitions: tuple[int, int]
    """Of the sequence with the fewest, and of the one with the most: a part of them may be missing."""
    trainings: int


def compared_at(scenario: Scenario) -> tuple[int, ...]:
    """Return the numbers of runs of a sequence that are compared."""
    if scenario in RUNS:
        return (1, *range(2, RUNS[scenario] + 1, 2))
    return (BEFORE_CHANGE + (2 if scenario is Scenario.REPLACED else 1),)


def figures(lineages: Sequence[Lineage], yardsticks: Iterable[Cell]) -> Figures:
    """Return the numbers.

    Args:
        lineages: any part of the sequences.
        yardsticks: cells of the quality benchmark.

    Raises:
        ValueError: two cells are the same measurement.
    """
    mine = [
        _renamed(lineage, one.number, one.cell)
        for lineage in lineages
        for one in lineage.ended
        if one.compared
    ]
    trained = {cell.row for cell in mine}
    others = [cell for cell in evaluations(yardsticks) if cell.method in YARDSTICKS and cell.row in trained]
    seeds = {cell.seed for cell in mine}
    judged = [cell for cell in others if cell.seed in seeds or cell.method in (CONSTANT, *TUNED)]
    rows = rows_of([*mine, *judged])
    names = [ADVISED, "search-uncharged"]
    names += [method(scenario, number) for scenario in RUNS for number in compared_at(scenario)]
    return Figures(
        rows=rows,
        standings=tuple(_standing(rows, name) for name in names if any(name in row.losses for row in rows)),
        exploring=tuple(
            _exploring(scenario, [one for one in lineages if one.scenario is scenario])
            for scenario in RUNS
            if any(one.scenario is scenario for one in lineages)
        ),
        changes=tuple(change for scenario in CHANGES if (change := _change(rows, scenario)) is not None),
        repetitions=_repetitions(lineages),
        trainings=sum(len(lineage.ended) for lineage in lineages),
    )


def _repetitions(lineages: Sequence[Lineage]) -> tuple[int, int]:
    counts = Counter((one.scenario, one.task, one.optimizer) for one in lineages).values()
    return min(counts, default=0), max(counts, default=0)


def _renamed(lineage: Lineage, number: int, cell: Cell) -> Cell:
    return dataclasses.replace(cell, method=method(lineage.scenario, number))


def _standing(rows: Sequence[Row], name: str) -> Standing:
    found = compare(rows, name, seed=SEED)
    return Standing(
        method=name,
        rows=found.gap_rows,
        gap=found.gap,
        median=found.median_log_ratio,
        near=found.near,
        wins=matchup(rows, name, ADVISED),
    )


def _exploring(scenario: Scenario, lineages: Sequence[Lineage]) -> Exploring:
    ratios, found = list[float](), {False: 0, True: 0}
    for lineage in lineages:
        first, *others = [one.cell for one in lineage.ended if one.number == 1 or not one.compared]
        found[lost(first)] += sum(map(lost, others))
        ratios += [math.log(final_loss(cell) / final_loss(first)) for cell in others]
    return Exploring(
        scenario=scenario,
        runs=len(ratios),
        mean=float(np.mean(ratios)),
        median=float(np.median(ratios)),
        worse=float(np.mean(np.array(ratios) > math.log(1.1))),
        lost=found[False],
        lost_like_first=found[True],
    )


def _change(rows: Sequence[Row], scenario: Scenario) -> Change | None:
    (number,) = compared_at(scenario)
    name = method(scenario, number)
    having = [row for row in rows if name in row.losses]
    if not having:
        return None
    ratio, count = log_ratio(having, name, ADVISED, seed=SEED)
    return Change(
        scenario=scenario, rows=count or len(having), ratio=ratio, wins=matchup(having, name, ADVISED)
    )


def by_row(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return the mean final loss of the methods in a row's table, by row and method."""
    names = [ADVISED, *(method(scenario, compared_at(scenario)[-1]) for scenario in RUNS)]
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        for name in names:
            if (mean := row.mean(name)) is not None:
                found[row.name][name] = mean
    return found
