"""All results of the benchmark as numbers."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlrs_bench.cell import Cell
from mlrs_bench.report.figures.bookkeeping import Cost, Stability, stabilities, tuning_costs
from mlrs_bench.report.figures.comparisons import Comparison, Matchup, compare, matchup
from mlrs_bench.report.figures.coverage import Missing, coverage
from mlrs_bench.report.figures.losses import Key, evaluations
from mlrs_bench.report.figures.methods import BEST_TUNED, ordered
from mlrs_bench.report.figures.provenance import Measured, measured
from mlrs_bench.report.figures.rows import Row, rows_of
from mlrs_bench.report.figures.scope import DEVELOPMENT_TASKS, UNTOUCHED_TASKS, Scope
from mlrs_bench.report.figures.sensitivity import Sensitivity, sensitivities
from mlrs_bench.report.figures.targets import EVERY, Target, targets

DEVELOPMENT = "development rows"
"""The group of rows that were looked at while the rules of the search were fitted."""
UNTOUCHED = "untouched rows"
"""The group of built-in rows that were not."""


@dataclass(frozen=True)
class Summary:
    """The benchmark in numbers; rows, methods and groups are in the order of the tables."""

    rows: tuple[Row, ...]
    methods: tuple[str, ...]
    """Every method with an evaluation at the default start, and the best tuned one of each row."""
    comparisons: Mapping[tuple[str, str], Comparison]
    """By group (`all`, development, untouched, an optimizer) and method, for those that ran in it."""
    matchups: Mapping[tuple[str, str], Matchup]
    """The first method against the second, over all rows."""
    accuracies: Mapping[Key, Mapping[str, float]]
    """Mean test accuracy by row and method, where the task has one."""
    sensitivities: tuple[Sensitivity, ...]
    stabilities: Mapping[str, Stability]
    tuning: Mapping[str, Cost]
    measured: Measured
    missing: tuple[Missing, ...]
    targets: tuple[Target, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """All rows, development and untouched ones, then the optimizers by name."""
        return tuple(dict.fromkeys(group for group, _ in self.comparisons))


def summarise(cells: Iterable[Cell], *, scope: Scope, seed: int = 0) -> Summary:
    """Return what the cells say; their order does not matter.

    Args:
        cells: one training each; any part of the benchmark.
        scope: the full benchmark, to say what is missing and which targets can be judged.
        seed: of the bootstrap.

    Raises:
        ValueError: two cells are the same measurement, or a diverged one has no finite loss.
    """
    cells = tuple(cells)
    rows = rows_of(cells)
    methods = ordered({method for row in rows for method in row.losses})
    comparisons = _comparisons(rows, methods, seed)
    stability = stabilities(cells)
    covered = coverage(cells, scope)
    return Summary(
        rows=rows,
        methods=methods,
        comparisons=comparisons,
        matchups={pair: matchup(rows, *pair) for pair in itertools.permutations(methods, 2)},
        accuracies=_accuracies(cells, rows),
        sensitivities=sensitivities(cells),
        stabilities=stability,
        tuning=tuning_costs(cells),
        measured=measured(cells),
        missing=covered.missing(),
        targets=targets(comparisons, stability, covered),
    )


def _comparisons(rows: Sequence[Row], methods: Sequence[str], seed: int) -> dict[tuple[str, str], Comparison]:
    groups = {EVERY: rows}
    for group, tasks in ((DEVELOPMENT, DEVELOPMENT_TASKS), (UNTOUCHED, UNTOUCHED_TASKS)):
        groups[group] = [row for row in rows if row.task in tasks]
    for optimizer in sorted({row.optimizer for row in rows}):
        groups[optimizer] = [row for row in rows if row.optimizer == optimizer]
    return {
        (group, method): compare(members, method, seed=seed)
        for group, members in groups.items()
        for method in methods
        if any(method in row.losses for row in members)
    }


def _accuracies(cells: Iterable[Cell], rows: Iterable[Row]) -> dict[Key, dict[str, float]]:
    found: dict[Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in sorted(evaluations(cells), key=lambda cell: cell.seed):
        if cell.test_accuracy is not None:
            found[cell.task, cell.optimizer][cell.method].append(cell.test_accuracy)
    for row in rows:
        if row.best_tuned in found[row.task, row.optimizer]:
            best = found[row.task, row.optimizer][row.best_tuned]
            found[row.task, row.optimizer][BEST_TUNED] = best
    return {
        key: {method: float(np.mean(each)) for method, each in methods.items()}
        for key, methods in found.items()
    }
