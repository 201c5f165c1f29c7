"""What changes when a training starts at the wrong learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlrs_bench.cell import Cell
from mlrs_bench.report.figures.bootstrap import RESAMPLES
from mlrs_bench.report.figures.losses import by_row, diverged, evaluations, paired
from mlrs_bench.report.figures.methods import ordered
from mlrs_bench.report.figures.rows import log_of_means
from mlrs_bench.report.figures.statistics import Floats

STARTS = (0.01, 0.1, 10.0, 100.0)
"""The wrong starts, as multiples of the default learning rate."""


@dataclass(frozen=True)
class Sensitivity:
    """A method that started at a multiple of the default learning rate, against itself at the default one.

    A move is ln(L_moved / L_default), which is what the row's log ratio moves by, since the best tuned
    loss stays where it is.
    """

    method: str
    start: float
    rows: int
    """Rows that have both starts."""
    median_move: float | None
    """The median of the absolute moves; None without a row."""
    median_high: float | None
    """The upper end of its 95 % interval, rows drawn anew."""
    worst_move: float | None
    """The move of the greatest size, with its sign: above 0 is worse than the default start."""
    worst_row: str | None
    runs: int
    diverged: int


def sensitivities(cells: Sequence[Cell]) -> tuple[Sensitivity, ...]:
    """Return what each wrong start did to each method that was tried with one."""
    found = []
    for start in STARTS:
        moved = evaluations(cells, start=start)
        found += [_sensitivity(cells, method, start) for method in ordered(cell.method for cell in moved)]
    return tuple(found)


def _sensitivity(cells: Sequence[Cell], method: str, start: float) -> Sensitivity:
    moved = [cell for cell in evaluations(cells, start=start) if cell.method == method]
    default = by_row(cell for cell in evaluations(cells) if cell.method == method)
    moves = {}
    for key, losses in by_row(moved).items():
        move = log_of_means(*paired(losses[method], default.get(key, {}).get(method, {})))
        if move is not None:
            moves[" / ".join(key)] = move
    sizes = np.abs(list(moves.values()))
    worst = max(moves, key=lambda row: abs(moves[row]), default=None)
    return Sensitivity(
        method=method,
        start=start,
        rows=len(moves),
        median_move=float(np.median(sizes)) if moves else None,
        median_high=_high(sizes) if moves else None,
        worst_move=None if worst is None else moves[worst],
        worst_row=worst,
        runs=len(moved),
        diverged=sum(map(diverged, moved)),
    )


def _high(sizes: Floats) -> float:
    """Return the upper end of the 95 % interval of a median over rows, by the bootstrap."""
    drawn = np.random.default_rng(0).choice(sizes, (RESAMPLES, len(sizes)))
    return float(np.quantile(np.median(drawn, axis=1), 0.975))
