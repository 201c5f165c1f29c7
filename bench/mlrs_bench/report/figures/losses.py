"""Final test losses by row, method and seed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from mlrs_bench.cell import Cell
from mlrs_bench.report.figures.statistics import Floats

Key = tuple[str, str]
"""A row: task and optimizer."""
CAP = 4.0
"""A training whose final test loss is no number counts with this many times its initial one."""
NOT_LEARNING = 0.95
"""A training that ends at this share of its initial test loss or above did not learn."""
Losses = Mapping[int, float]
"""Final test loss by seed."""


def evaluations(cells: Iterable[Cell], *, start: float = 1.0) -> tuple[Cell, ...]:
    """Return the evaluation cells whose learning rate started at this multiple of the default one."""
    return tuple(cell for cell in cells if cell.purpose == "eval" and math.isclose(cell.start, start))


def diverged(cell: Cell) -> bool:
    """Return whether the training came to no usable end."""
    return cell.diverged or not math.isfinite(cell.test_loss)


def final_loss(cell: Cell) -> float:
    """Return what the training counts as: its test loss, which cells hold capped, or the cap itself.

    Raises:
        ValueError: neither the final nor the initial test loss is a number.
    """
    if math.isfinite(cell.test_loss):
        return cell.test_loss
    if not math.isfinite(cell.initial_test_loss):
        raise ValueError(
            f"{describe(cell)}: the training diverged, and its initial_test_loss is "
            f"{cell.initial_test_loss}; record the loss before the first step"
        )
    return CAP * cell.initial_test_loss


def lost(cell: Cell) -> bool:
    """Return whether the training ended with a test loss that is no number, or above the one before it."""
    return diverged(cell) or final_loss(cell) > cell.initial_test_loss


def not_learning(cell: Cell) -> bool:
    """Return whether the training ended within 5 % of its initial test loss, or above it."""
    return final_loss(cell) >= NOT_LEARNING * cell.initial_test_loss


def by_row(cells: Iterable[Cell]) -> dict[Key, dict[str, dict[int, float]]]:
    """Return final losses by row, method and seed, all in sorted order.

    Raises:
        ValueError: two cells are of the same row, method and seed.
    """
    found: dict[Key, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for cell in sorted(cells, key=lambda cell: (cell.task, cell.optimizer, cell.method, cell.seed)):
        seeds = found[cell.task, cell.optimizer][cell.method]
        if cell.seed in seeds:
            raise ValueError(f"{describe(cell)}: measured twice; keep one of the cells")
        seeds[cell.seed] = final_loss(cell)
    return {key: dict(methods) for key, methods in found.items()}


def paired(losses: Losses, others: Losses) -> tuple[Floats, Floats]:
    """Return both methods' losses on the seeds they share, each (n,) float64, in order of seed."""
    seeds = sorted(losses.keys() & others.keys())
    return np.array([losses[seed] for seed in seeds]), np.array([others[seed] for seed in seeds])


def describe(cell: Cell) -> str:
    """Return what names a cell in a message."""
    return f"{cell.task}/{cell.optimizer}, {cell.method}, seed {cell.seed}, start x{cell.start:g}"
