"""The curve that was fitted to the runs of a task, drawn in plain characters."""

from __future__ import annotations

import math
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mlrs.types import Ending, Expected, PastRun, TaskMemory

WIDTH, HEIGHT = 64, 12
"""The size of the drawing, in characters, without its axes."""
BAND, RUN, DIVERGED, BEST = ".", "o", ":", "*"
"""One standard deviation around the curve; a run; a run that diverged; the best known."""


def curve_lines(memory: TaskMemory) -> list[str]:
    """Return a drawing of what is remembered: one of learning rates, and one of the offsets of models.

    Each policy has a letter of its own; later marks cover earlier ones: the band, the curve, runs, the best.
    """
    known: list[Expected | PastRun] = [*memory.curve, *memory.runs]
    policies = dict.fromkeys(one.policy for one in known)
    letters = dict(zip(policies, string.ascii_lowercase.replace(RUN, ""), strict=False))
    lines = []
    for of_models in (False, True):
        curve = [one for one in memory.curve if (one.learning_rate is None) == of_models]
        runs = [one for one in memory.runs if (one.learning_rate is None) == of_models]
        best = memory.best
        if best is not None and (best.learning_rate is None) != of_models:
            best = None
        drawn = _drawn(memory, curve, runs, best, letters)
        if drawn:
            lines += [*drawn, "octaves on the model's learning rates" if of_models else "learning rate", ""]
    if lines:
        legend = [f"{letter} {policy}" for policy, letter in letters.items()]
        legend += [f"{BAND} one standard deviation", f"{RUN} a run", f"{DIVERGED} a run that diverged"]
        lines.append("; ".join([*legend, f"{BEST} the best known"]))
    return lines


@dataclass
class _Canvas:
    """A drawing, from places and values to characters."""

    places: tuple[float, float]
    """The ends of the horizontal axis."""
    values: tuple[float, float]
    """The ends of the vertical axis."""
    rows: list[list[str]] = field(default_factory=lambda: [[" "] * WIDTH for _ in range(HEIGHT)])
    """The characters, the highest values first."""

    def column(self, place: float) -> int:
        """Return the column of a place."""
        return round(_share(place, *self.places) * (WIDTH - 1))

    def row(self, value: float) -> int:
        """Return the row of a value."""
        return round((1.0 - _share(value, *self.values)) * (HEIGHT - 1))

    def put(self, place: float, value: float, mark: str) -> None:
        """Draw a mark."""
        self.rows[self.row(value)][self.column(place)] = mark

    def fill(self, column: int, top: float, bottom: float, mark: str) -> None:
        """Draw a mark in a column from one value down to another."""
        for row in range(self.row(top), self.row(bottom) + 1):
            self.rows[row][column] = mark


def _drawn(
    memory: TaskMemory,
    curve: Sequence[Expected],
    runs: Sequence[PastRun],
    best: Expected | None,
    letters: dict[str, str],
) -> list[str]:
    """Return the lines of one drawing with its axes; none if there is no value to draw."""
    ended = [(one, one.measured(memory.measure)) for one in runs if one.ending != Ending.DIVERGED]
    points = [(_place(one), value) for one, value in ended if value is not None and math.isfinite(value)]
    values = [value for _, value in points] + [end for one in curve for end in (one.low, one.high)]
    if not values:
        return []
    shown: list[Expected | PastRun] = [*curve, *runs]
    canvas = _Canvas(_ends(map(_place, shown)), _ends(values))
    for is_band in (True, False):
        for policy in dict.fromkeys(one.policy for one in curve):
            line = sorted((one for one in curve if one.policy == policy), key=_place)
            _draw_line(canvas, line, "" if is_band else letters.get(policy, "?"))
    for one in runs:
        if one.ending == Ending.DIVERGED:
            canvas.fill(canvas.column(_place(one)), max(values), min(values), DIVERGED)
    for place, value in points:
        canvas.put(place, value, RUN)
    if best is not None:
        canvas.put(_place(best), min(max(best.value, min(values)), max(values)), BEST)
    return _framed(canvas, of_models=shown[0].learning_rate is None)


def _draw_line(canvas: _Canvas, line: Sequence[Expected], letter: str) -> None:
    """Draw a policy's curve with a letter, in every column between its ends; without one, its band."""
    columns = [canvas.column(_place(one)) for one in line]
    for column in range(columns[0], columns[-1] + 1):
        if letter:
            value = _between(column, columns, [one.value for one in line])
            canvas.rows[canvas.row(value)][column] = letter
        else:
            high = _between(column, columns, [one.high for one in line])
            canvas.fill(column, high, _between(column, columns, [one.low for one in line]), BAND)


def _between(at: int, columns: Sequence[int], values: Sequence[float]) -> float:
    """Return a value at a column, in a straight line between those to its sides."""
    after = next(index for index, column in enumerate(columns) if column >= at)
    if columns[after] == at or after == 0:
        return values[after]
    share = (at - columns[after - 1]) / (columns[after] - columns[after - 1])
    return values[after - 1] + share * (values[after] - values[after - 1])


def _framed(canvas: _Canvas, *, of_models: bool) -> list[str]:
    """Return the lines of a drawing with numbers at its ends."""
    names = {0: f"{canvas.values[1]:.4g}", HEIGHT - 1: f"{canvas.values[0]:.4g}"}
    left = max(map(len, names.values()))
    lines = [f"{names.get(row, ''):>{left}} |{''.join(marks)}" for row, marks in enumerate(canvas.rows)]
    ends = [f"{end:+.2g}" if of_models else f"{2.0**end:.3g}" for end in canvas.places]
    lines.append(f"{'':>{left}} +{'-' * WIDTH}")
    lines.append(f"{'':>{left}}  {ends[0]}{ends[1]:>{WIDTH - len(ends[0])}}")
    return [line.rstrip() for line in lines]


def _place(one: Expected | PastRun) -> float:
    """Return the octaves of a learning rate above 1, or those that a model's are multiplied by."""
    return one.lr_offset if one.learning_rate is None else math.log2(one.learning_rate)


def _ends(numbers: Iterable[float]) -> tuple[float, float]:
    """Return the least and the largest number, further apart if they are equal."""
    ordered = sorted(numbers)
    room = 0.0 if ordered[-1] > ordered[0] else 0.5 * (abs(ordered[0]) or 1.0)
    return ordered[0] - room, ordered[-1] + room


def _share(number: float, low: float, high: float) -> float:
    return (number - low) / (high - low)
