"""What the advice promises, and whether the numbers keep it."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlrs_bench.report.figures.bookkeeping import Stability
from mlrs_bench.report.figures.comparisons import NEAR, Comparison
from mlrs_bench.report.figures.coverage import Coverage
from mlrs_bench.report.figures.methods import ADVISED, CONSTANT, FINDERS, TUNED, untuned
from mlrs_bench.report.figures.sensitivity import STARTS, Sensitivity
from mlrs_bench.report.figures.wording import NOTHING, interval, share

EVERY = "all"
"""The group of rows of every optimizer."""
Comparisons = Mapping[tuple[str, str], Comparison]
"""By group of rows and method."""

GAP = 0.75
NEAR_SHARE = 0.8
WORST_EXCESS = 0.10
MOST_MOVE = {0.01: 0.03, 0.1: 0.02, 10.0: 0.02, 100.0: 0.03}
"""By the start, how far the median row may move."""


class Status(enum.Enum):
    """Whether a target is kept, as far as that was measured."""

    MET = "met"
    MISSED = "missed"
    UNMEASURED = "not measured"


@dataclass(frozen=True)
class Target:
    """A promise and what was measured."""

    name: str
    goal: str
    measured: str
    status: Status
    """By what there is so far."""
    judged: str
    """Over how many of how many rows."""
    complete: bool
    """Whether all rows, methods, starts and seeds that the target speaks of are there."""

    @property
    def verdict(self) -> str:
        """Whether the target is kept; of a part of the measurements, only what it looks like so far."""
        if self.complete or self.measured == NOTHING:
            return self.status.value
        if self.status is Status.UNMEASURED:
            return "not fully measured"
        return f"not fully measured: so far {self.status.value}"


def verdict(parts: Iterable[bool | None]) -> Status:
    """Return whether all parts hold: one that fails misses; else one that is None is not measured."""
    known = list(parts)
    if False in known:
        return Status.MISSED
    return Status.UNMEASURED if None in known or not known else Status.MET


def targets(
    comparisons: Comparisons,
    stability: Mapping[str, Stability],
    moves: Sequence[Sensitivity],
    covered: Coverage,
) -> tuple[Target, ...]:
    """Return every target with its figure, from what was measured of the advised method."""
    advised = comparisons.get((EVERY, ADVISED))
    return (
        _gap(advised, covered),
        _beats_untuned(comparisons, covered),
        _near(advised, covered),
        _worst(advised, covered),
        _stable(stability.get(ADVISED), covered),
        _typical_move(moves, covered),
        _beats_finders(comparisons, covered),
    )


def _gap(advised: Comparison | None, covered: Coverage) -> Target:
    gap = advised.gap if advised else None
    return Target(
        name="gap to the best tuned schedule closed",
        goal=f"IQM ≥ {GAP:.2f}",
        measured=interval(gap),
        status=verdict([None if gap is None else gap.point >= GAP]),
        judged=_of(advised.gap_rows if advised else 0, covered),
        complete=covered.complete((ADVISED, CONSTANT, *TUNED)),
    )


def _beats_untuned(comparisons: Comparisons, covered: Coverage) -> Target:
    parts: list[bool | None] = []
    said, judged, complete = [], [], []
    for optimizer in sorted({optimizer for _, optimizer in covered.rows}):
        others = [name for name in untuned(covered.methods) if optimizer in covered.methods[name]]
        found = {name: each for name in others if (each := comparisons.get((optimizer, name))) is not None}
        parts += [_better(each) for each in found.values()]
        said += [f"{optimizer}: {_compared(found)}"] if found else []
        fewest = min((each.common_rows for each in found.values()), default=0)
        rows = _of(fewest, covered, optimizer=optimizer)
        judged.append(f"{optimizer}: {rows}, {len(found)} of {len(others)} methods")
        complete.append(covered.complete((ADVISED, *others), optimizer=optimizer))
    return Target(
        name="better than every untuned method, for each optimizer",
        goal=f"IQM of ln(L_{ADVISED} / L) on common rows, upper end of its interval < 0",
        measured="; ".join(said) or NOTHING,
        status=verdict(parts),
        judged="; ".join(judged) or NOTHING,
        complete=bool(complete) and all(complete),
    )


def _better(other: Comparison) -> bool | None:
    return None if other.advised_ratio is None else other.advised_ratio.high < 0.0


def _compared(others: Mapping[str, Comparison]) -> str:
    """Return how many methods were beaten, and the figures of the closest one."""
    beaten = [name for name, each in others.items() if _better(each)]
    rest = [name for name in others if name not in beaten]
    text = f"better than {len(beaten)} of {len(others)}" + (f" (not {', '.join(rest)})" if rest else "")
    known = {name: each.advised_ratio.high for name, each in others.items() if each.advised_ratio}
    if not known:
        return text
    closest = max(known, key=known.__getitem__)
    return f"{text}, closest {closest}: {_against(others[closest])}"


def _against(other: Comparison) -> str:
    """Return the paired log ratio, and beside it what both closed of the gap where there is one."""
    gaps = f"gap closed {interval(other.advised_gap)} against {interval(other.common_gap)}"
    return f"ln {interval(other.advised_ratio, '+.3f')}, {gaps}"


def _near(advised: Comparison | None, covered: Coverage) -> Target:
    near = advised.near if advised else None
    return Target(
        name="final loss near the best tuned one's",
        goal=f"at most {share(NEAR)} above it on ≥ {share(NEAR_SHARE)} of rows",
        measured=NOTHING if near is None else f"{share(near)} of rows",
        status=verdict([None if near is None else near >= NEAR_SHARE]),
        judged=_of(advised.ratio_rows if advised else 0, covered),
        complete=covered.complete((ADVISED, *TUNED)),
    )


def _worst(advised: Comparison | None, covered: Coverage) -> Target:
    worst = advised.worst_log_ratio if advised else None
    return Target(
        name="final loss never far from it",
        goal=f"on no row more than {share(WORST_EXCESS)} above it",
        measured=f"{share(math.expm1(worst), '+.1f')} ({advised.worst_row})"
        if advised and worst is not None
        else NOTHING,
        status=verdict([None if worst is None else worst <= math.log1p(WORST_EXCESS)]),
        judged=_of(advised.ratio_rows if advised else 0, covered),
        complete=covered.complete((ADVISED, *TUNED)),
    )


def _stable(advised: Stability | None, covered: Coverage) -> Target:
    ran = [covered.counts.get((ADVISED, start), {}) for start in (1.0, *STARTS)]
    return Target(
        name="trainings lost",
        goal="0, whatever the start",
        measured=f"{advised.lost} of {advised.runs} runs" if advised else NOTHING,
        status=verdict([None if advised is None else advised.lost == 0]),
        judged=_of(min(map(len, ran)), covered),
        complete=covered.complete([ADVISED], starts=(1.0, *STARTS)),
    )


def _typical_move(moves: Sequence[Sensitivity], covered: Coverage) -> Target:
    found = {each.start: each for each in moves if each.method == ADVISED}
    sizes = {start: found[start].median_move if start in found else None for start in STARTS}
    said = [
        f"x{start:g}: {share(each.median_move, '.1f')}, at most {share(each.median_high, '.1f')}"
        for start, each in found.items()
        if each.median_move is not None
    ]
    goals = ", ".join(f"x{start:g}: {share(MOST_MOVE[start])}" for start in STARTS)
    return Target(
        name="start that is off, median row",
        goal=f"ln(L / L_best) moves by at most {goals}",
        measured="; ".join(said) or NOTHING,
        status=verdict(None if size is None else size <= MOST_MOVE[start] for start, size in sizes.items()),
        judged="; ".join(
            f"x{start:g}: {_of(found[start].rows if start in found else 0, covered)}" for start in STARTS
        ),
        complete=covered.complete([ADVISED], starts=(1.0, *STARTS)),
    )


def _beats_finders(comparisons: Comparisons, covered: Coverage) -> Target:
    found = {name: each for name in FINDERS if (each := comparisons.get((EVERY, name))) is not None}
    apart = [
        None
        if each.common_gap is None or each.advised_gap is None
        else each.advised_gap.above(each.common_gap)
        for each in found.values()
    ]
    return Target(
        name="better than the learning-rate finders of other packages, with a line after them",
        goal="gap closed on common rows, intervals apart",
        measured="; ".join(f"{name}: {_against(each)}" for name, each in found.items()) or NOTHING,
        status=verdict([*apart, *([None] * (len(FINDERS) - len(found)))]),
        judged=_of(min((each.common_gap_rows for each in found.values()), default=0), covered),
        complete=covered.complete((ADVISED, *FINDERS, CONSTANT, *TUNED)),
    )


def _of(rows: int, covered: Coverage, *, optimizer: str | None = None) -> str:
    every = [row for row in covered.rows if optimizer in (None, row[1])]
    return f"{rows} of {len(every)} rows"
