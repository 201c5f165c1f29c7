"""What the full benchmark holds: the rows, methods, starts and seeds that a whole report is of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlrs_bench.methods import all_methods
from mlrs_bench.models import OFFICIAL, PAPER, ModelFile
from mlrs_bench.report.figures.losses import Key
from mlrs_bench.report.figures.methods import NETWORK, OTHER_TUNED
from mlrs_bench.rules import RULES
from mlrs_bench.tasks import CIFAR10_TASKS, TASKS

SEEDS = 5
"""Evaluation trainings of each kind in the full benchmark."""
DEVELOPMENT_TASKS = frozenset(
    {
        "digits-cnn",
        "digits-cnn-noisy",
        "digits-cnn-tenth",
        "digits-autoencoder",
        "char-lstm",
        "char-transformer",
        "tabular-regression",
        "tabular-classification",
        "linear",
        *CIFAR10_TASKS,
    }
)
"""Tasks whose results were looked at while the rules of the search were fitted."""
UNTOUCHED_TASKS = frozenset({*TASKS, *CIFAR10_TASKS}) - DEVELOPMENT_TASKS
"""The other built-in tasks."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What a report must hold before its targets are judged."""

    rows: tuple[Key, ...]
    """Task and optimizer."""
    methods: Mapping[str, tuple[str, ...]]
    """By name, the optimizers that each works with."""
    seeds: int = SEEDS


def benchmark_scope(rows: Iterable[Key] | None = None) -> Scope:
    """Return the scope of the full benchmark: every method known, whether or not its file was given.

    But for the tuned optimizers, which cost as much as all else and are no schedules: they can be asked for.

    Args:
        rows: the rows asked for, where tasks are the user's own. Default: every built-in task under
            every optimizer.
    """
    built_in = ((task, optimizer) for task in (*TASKS, *CIFAR10_TASKS) for optimizer in RULES)
    networks = (NETWORK, PAPER, OFFICIAL)
    known = all_methods({name: ModelFile(name, about="", path=Path(), digest="") for name in networks})
    return Scope(
        rows=tuple(built_in if rows is None else rows),
        methods={method.name: method.optimizers for method in known if method.name not in OTHER_TUNED},
    )
