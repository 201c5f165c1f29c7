"""Grids of curves: a panel a row, with the methods that a reader would compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlrs_bench.cell import Cell, Points
from mlrs_bench.report.figures.losses import evaluations
from mlrs_bench.report.figures.methods import BEST_TUNED
from mlrs_bench.report.figures.rows import Row
from mlrs_bench.report.figures.statistics import Floats
from mlrs_bench.report.pages.style import LINES, new_figure, save

COLUMNS = 4
REACH = 1e3
"""How many times below the least and above the greatest first value a panel shows."""


def draw_learning_curves(cells: Sequence[Cell], rows: Sequence[Row], path: Path) -> None:
    """Draw the training losses of each row as a PNG, means over seeds."""
    curves = {_key(cell): cell.train_curve for cell in evaluations(cells)}
    _draw(curves, rows, path, title="Training loss, mean over seeds", unit="loss")


def draw_learning_rates(cells: Sequence[Cell], rows: Sequence[Row], path: Path) -> None:
    """Draw the learning rates of each row as a PNG, means over seeds."""
    curves = {_key(cell): cell.lr_curve for cell in evaluations(cells)}
    _draw(curves, rows, path, title="Learning rate, mean over seeds", unit="learning rate")


def mean_curve(curves: Sequence[Points]) -> tuple[Floats, Floats]:
    """Return the steps and the mean over curves, both (n,) float64.

    Curves are interpolated onto all steps that one of them has; past its last step, or where its
    value cannot stand on a logarithmic axis, a curve does not count.
    """
    drawn = [np.array([point for point in curve if _drawable(point[1])]) for curve in curves]
    drawn = [curve for curve in drawn if curve.size]
    if not drawn:
        return np.empty(0), np.empty(0)
    steps = np.unique(np.concatenate([curve[:, 0] for curve in drawn]))
    values = [np.interp(steps, curve[:, 0], curve[:, 1], left=np.nan, right=np.nan) for curve in drawn]
    return steps, np.nanmean(values, axis=0)


def _drawable(value: float) -> bool:
    return bool(np.isfinite(value)) and value > 0.0


def _key(cell: Cell) -> tuple[str, str, str, int]:
    return cell.task, cell.optimizer, cell.method, cell.seed


def _draw(
    curves: dict[tuple[str, str, str, int], Points], rows: Sequence[Row], path: Path, *, title: str, unit: str
) -> None:
    lines = -(-len(rows) // COLUMNS)
    figure = new_figure(0.9 + 2.2 * lines, title)
    grid: Any = figure.subplots(lines, COLUMNS, squeeze=False)
    for axis, row in zip(grid.flat, rows, strict=False):
        _panel(axis, row, curves)
    for axis in grid.flat[len(rows) :]:
        axis.set_visible(False)
    for axis in grid[:, 0]:
        axis.set_ylabel(unit, fontsize=8)
    shown = {line.get_label(): line for axis in grid.flat for line in axis.lines}
    drawn = [name for name in LINES if name in shown]
    figure.legend(
        [shown[name] for name in drawn], drawn, loc="outside lower left", ncols=4, frameon=False, fontsize=9
    )
    save(figure, path)


def _panel(axis: Any, row: Row, curves: dict[tuple[str, str, str, int], Points]) -> None:
    for method, style in LINES.items():
        ran = row.best_tuned if method == BEST_TUNED else method
        found = [curves[key] for key in sorted(curves) if key[:3] == (row.task, row.optimizer, ran)]
        steps, values = mean_curve(found)
        if steps.size:
            axis.plot(steps, values, label=method, **style)
    if axis.lines:
        _scale(axis)
    axis.set_title(row.name, fontsize=9, loc="left")
    axis.grid(visible=True, which="major", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=7, which="both")


def _scale(axis: Any) -> None:
    """Make the vertical axis logarithmic, without the reaches where only a failure or a zero would be."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_yscale("log")
    starts = [line.get_ydata()[0] for line in axis.lines]
    low, high = axis.get_ylim()
    low, high = max(low, min(starts) / REACH), min(high, max(starts) * REACH)
    axis.set_ylim(low, high)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7) if high < 10 * low else (1, 3)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
