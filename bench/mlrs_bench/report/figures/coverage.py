"""How much of the full benchmark was measured."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mlrs_bench.cell import Cell
from mlrs_bench.report.figures.losses import Key
from mlrs_bench.report.figures.methods import ADVISED, ordered
from mlrs_bench.report.figures.scope import Scope
from mlrs_bench.report.figures.sensitivity import STARTS

Kind = tuple[str, float]
"""A method, and the multiple of the default learning rate that it starts from."""


@dataclass(frozen=True)
class Missing:
    """Measurements of the full benchmark that are not there."""

    what: str
    rows: tuple[str, ...]
    """Where; empty: on no row was there any."""


@dataclass(frozen=True)
class Coverage:
    """What was measured of what there is to measure."""

    rows: tuple[Key, ...]
    """All rows, measured or not."""
    methods: Mapping[str, tuple[str, ...]]
    """All methods, measured or not, and their optimizers."""
    seeds: int
    """How many make a measurement whole."""
    counts: Mapping[Kind, Mapping[Key, int]]
    """Seeds measured, by kind of training and row."""

    def of(self, method: str) -> tuple[Key, ...]:
        """Return the rows that a method should have run on."""
        optimizers = self.methods.get(method)
        return tuple(row for row in self.rows if optimizers is None or row[1] in optimizers)

    def complete(self, methods: Iterable[str], *, starts: Iterable[float] = (1.0,)) -> bool:
        """Return whether these methods ran on all their rows, from all these starts, on all seeds."""
        kinds = [(method, start) for method in methods for start in starts]
        return bool(self.rows) and all(
            self.counts.get(kind, {}).get(row, 0) >= self.seeds for kind in kinds for row in self.of(kind[0])
        )

    def missing(self) -> tuple[Missing, ...]:
        """Return what is not there: rows, methods on rows, starts on rows, seeds on rows."""
        ran = {row for counts in self.counts.values() for row in counts}
        absent = tuple(_name(row) for row in self.rows if row not in ran)
        found = [Missing("no evaluation", absent)] if absent else []
        kinds = [(method, 1.0) for method in ordered(self.methods)]
        kinds += [(ADVISED, start) for start in STARTS] if ADVISED in self.methods else []
        return (*found, *(each for kind in kinds for each in self._missing(kind, ran)))

    def _missing(self, kind: Kind, ran: set[Key]) -> Iterator[Missing]:
        counts = self.counts.get(kind, {})
        expected = [row for row in self.of(kind[0]) if row in ran]
        absent = tuple(_name(row) for row in expected if row not in counts)
        partial = tuple(_name(row) for row in expected if 0 < counts.get(row, 0) < self.seeds)
        name = kind[0] if kind[1] == 1.0 else f"{kind[0]} from x{kind[1]:g}"
        if absent or not counts:
            yield Missing(f"{name}: not run", absent if counts else ())
        if partial:
            yield Missing(f"{name}: fewer than {self.seeds} seeds", partial)


def coverage(cells: Iterable[Cell], scope: Scope) -> Coverage:
    """Return what the cells cover; rows and methods beyond the scope count as part of the whole."""
    ran = [cell for cell in cells if cell.purpose == "eval"]
    seeds: dict[Kind, dict[Key, set[int]]] = defaultdict(lambda: defaultdict(set))
    methods: dict[str, Counter[str]] = defaultdict(Counter)
    for cell in sorted(ran, key=lambda cell: (cell.method, cell.row)):
        seeds[cell.method, _start(cell)][cell.row].add(cell.seed)
        methods[cell.method][cell.optimizer] += 1
    beyond = sorted({cell.row for cell in ran}.difference(scope.rows))
    return Coverage(
        rows=(*scope.rows, *beyond),
        methods={name: tuple(optimizers) for name, optimizers in methods.items()} | dict(scope.methods),
        seeds=scope.seeds,
        counts={kind: {row: len(each) for row, each in rows.items()} for kind, rows in seeds.items()},
    )


def _start(cell: Cell) -> float:
    return next((start for start in (1.0, *STARTS) if math.isclose(start, cell.start)), cell.start)


def _name(row: Key) -> str:
    return " / ".join(row)
