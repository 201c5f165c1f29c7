"""Which trainings a table needs: a pure function of what was asked for, and of the cells there are.

A tuned method is trained at each base LR of the grid, on seeds that are used for nothing else. The base
LR with the least validation loss wins; while that is at the edge of those tried, one more is tried
beyond it, unless the task names the base LRs. Only then is it known which trainings to evaluate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

from mlrs_bench.cell import Cell, CellKey
from mlrs_bench.methods import Method
from mlrs_bench.rules import RULES, half_decades
from mlrs_bench.task import Task

Find = Callable[[CellKey], Cell | None]
"""Returns the cell of a key, if it is there."""
TUNING_SEEDS = (0, 1)
"""The seeds that base LRs are chosen by."""
FIRST_SEED = 100
"""The first of the seeds that are evaluated."""
MAX_EXTENSIONS = 6
"""How far the grid may grow; it does so at one end only."""


@dataclass(frozen=True)
class Edge:
    """A search that ended at an edge of what it tried: a better base LR may lie beyond."""

    task: str
    optimizer: str
    method: str
    base_lr: float
    """The best one, and the highest or lowest that was tried."""


@dataclass
class Stage:
    """What a table needs, as far as it is known."""

    tune: list[CellKey] = field(default_factory=list)
    """Trainings that choose base LRs."""
    evaluate: list[CellKey] = field(default_factory=list)
    """Trainings that the table shows."""
    undecided: list[CellKey] = field(default_factory=list)
    """Those of which the base LR is still being chosen; theirs is `None`."""
    edges: list[Edge] = field(default_factory=list)
    """The searches that ended at an edge."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A table: these methods on these rows."""

    tasks: Sequence[Task]
    optimizers: Sequence[str]
    methods: Sequence[Method]
    seeds: int
    """Trainings of each kind that are evaluated."""

    @property
    def rows(self) -> list[tuple[Task, str]]:
        """The rows: each a task with an optimizer."""
        pairs = product(self.tasks, self.optimizers)
        return [(task, optimizer) for task, optimizer in pairs if optimizer in (task.tuned_at or RULES)]

    def stage(self, find: Find) -> Stage:
        """Return what the table needs, given the cells there are."""
        stage = Stage()
        for (task, optimizer), method in product(self.rows, self.methods):
            if optimizer not in method.optimizers or task.horizon < method.least_horizon:
                continue
            if not method.tuned:
                stage.evaluate += self._evaluations(task, optimizer, method, method.base_lrs.get(optimizer))
                continue
            search = search_base_lr(task, optimizer, method.name, find)
            stage.tune += search.keys
            if search.best is not None and search.at_edge:
                stage.edges.append(Edge(task.name, optimizer, method.name, search.best))
            known = stage.undecided if search.best is None else stage.evaluate
            known += self._evaluations(task, optimizer, method, search.best)
        return stage

    def _evaluations(
        self, task: Task, optimizer: str, method: Method, base_lr: float | None
    ) -> Iterator[CellKey]:
        for start, seed in product(method.starts, range(FIRST_SEED, FIRST_SEED + self.seeds)):
            yield CellKey(
                task=task.name,
                optimizer=optimizer,
                method=method.name,
                base_lr=base_lr,
                start=start,
                seed=seed,
            )


@dataclass(frozen=True)
class Search:
    """The search for a base LR."""

    keys: list[CellKey]
    """Its trainings so far, and those to do next."""
    best: float | None
    """What it found; `None`: it needs the trainings that are not there yet."""
    at_edge: bool = False
    """Whether that is the highest or lowest it tried, and the grid has grown as far as it may."""


def search_base_lr(task: Task, optimizer: str, method: str, find: Find) -> Search:
    """Return where the search for a method's base LR on a row stands."""
    grid = task.tuned_at.get(optimizer) or RULES[optimizer].grid
    base_lrs = list(grid)
    while True:
        keys = list(_tunings(task.name, optimizer, method, base_lrs))
        cells = [cell for key in keys if (cell := find(key)) is not None]
        if len(cells) < len(keys):
            return Search(keys, None)
        best = best_base_lr(cells)
        beyond = _beyond(best, base_lrs)
        if beyond is None or task.tuned_at:
            return Search(keys, best, at_edge=beyond is not None)
        # All extensions are at one end: at the other, the loss is not the least, and stays so.
        if len(base_lrs) == len(grid) + MAX_EXTENSIONS:
            return Search(keys, best, at_edge=True)
        base_lrs = sorted([*base_lrs, beyond])


def best_base_lr(cells: Iterable[Cell]) -> float:
    """Return the base LR of the least mean validation loss; of equal ones the lowest."""
    losses: dict[float, list[float]] = {}
    for cell in cells:
        losses.setdefault(cell.base_lr or 0.0, []).append(cell.valid_loss)
    return min(sorted(losses), key=lambda lr: math.fsum(losses[lr]) / len(losses[lr]))


def _tunings(task: str, optimizer: str, method: str, base_lrs: Sequence[float]) -> Iterator[CellKey]:
    for base_lr, seed in product(base_lrs, TUNING_SEEDS):
        yield CellKey(
            task=task, optimizer=optimizer, method=method, base_lr=base_lr, seed=seed, purpose="tune"
        )


def _beyond(best: float, base_lrs: Sequence[float]) -> float | None:
    """Return the next base LR of the grid beyond the best one, if that is at an edge."""
    exponent = round(2 * math.log10(best))
    if best == base_lrs[0]:
        return half_decades(exponent - 1, exponent - 1)[0]
    if best == base_lrs[-1]:
        return half_decades(exponent + 1, exponent + 1)[0]
    return None
