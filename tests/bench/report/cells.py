"""Cells as a benchmark would hand them over, made from the losses alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mlrs_bench.cell import Cell
from mlrs_bench.report import Scope, Summary, summarise

FACTORS = {
    "search": 0.95,
    "search-signals": 1.2,
    "search-losses": 1.22,
    "search-schedule": 1.24,
    "mlr-snet": 1.13,
    "tuned-cosine": 1.0,
    "tuned-linear": 1.05,
    "tuned-wsd": 1.1,
    "cosine": 1.3,
    "constant": 1.5,
}
"""Final losses over the best tuned one's, by method: what `benchmark` builds on."""


def cell(method: str, test_loss: float, **fields: Any) -> Cell:
    """Return an evaluation cell with this final loss."""
    values: dict[str, Any] = {
        "task": "digits",
        "optimizer": "sgd",
        "method": method,
        "base_lr": None,
        "start": 1.0,
        "seed": 0,
        "purpose": "eval",
        "horizon": 100,
        "test_loss": test_loss,
        "test_accuracy": None,
        "valid_loss": test_loss,
        "diverged": False,
        "initial_test_loss": 2.3,
        "train_curve": tuple((step, 2.3 * math.exp(-step / 40)) for step in range(0, 100, 10)),
        "lr_curve": tuple((step, 0.1 * (1 - step / 100)) for step in range(0, 100, 10)),
        "held": 0,
        "seconds": 1.5,
        "identity": method,
    }
    return Cell(**(values | fields))


def row(losses: Mapping[str, Sequence[float]], **fields: Any) -> list[Cell]:
    """Return a row's cells: by method, a final loss a seed."""
    return [
        cell(method, loss, seed=seed, **fields)
        for method, each in losses.items()
        for seed, loss in enumerate(each)
    ]


def benchmark(
    *, tasks: int = 3, seeds: int = 3, noise: float = 0.01, factors: Mapping[str, float] = FACTORS
) -> list[Cell]:
    """Return a whole benchmark under two optimizers, with wrong starts and tuning."""
    generator = np.random.default_rng(7)
    cells = []
    for task in (f"task-{number}" for number in range(tasks)):
        for optimizer in ("sgd", "adamw"):
            group = {"task": task, "optimizer": optimizer}
            base = generator.uniform(0.1, 1.0)
            drawn = {
                method: base * factor * np.exp(noise * generator.standard_normal(seeds))
                for method, factor in factors.items()
            }
            cells += row(drawn, test_accuracy=0.9, **group)
            for start in (0.01, 0.1, 10.0, 100.0):
                cells += row({"search": drawn["search"] * 1.01}, start=start, **group)
            cells += [
                cell("tuned-cosine", 1.0, purpose="tune", base_lr=lr, **group) for lr in (0.01, 0.1, 1.0)
            ]
    return cells


def scope_of(cells: Iterable[Cell]) -> Scope:
    """Return the scope of a benchmark of which these cells are all, each row with as many seeds."""
    ran = [each for each in cells if each.purpose == "eval"]
    rows = sorted({each.row for each in ran})
    return Scope(
        rows=tuple(rows),
        methods={
            method: tuple(sorted({each.optimizer for each in ran if each.method == method}))
            for method in sorted({each.method for each in ran})
        },
        seeds=len({each.seed for each in ran}),
    )


def summary_of(cells: Iterable[Cell], *, scope: Scope | None = None) -> Summary:
    """Return the summary of cells, in a scope that is theirs if no other is given."""
    cells = tuple(cells)
    return summarise(cells, scope=scope or scope_of(cells))
