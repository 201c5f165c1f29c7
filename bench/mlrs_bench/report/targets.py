"""What the advice promises, and whether the numbers keep it."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlrs_bench.report.bookkeeping import Stability
from mlrs_bench.report.methods import ABLATION, ADVISED, untuned
from mlrs_bench.report.sensitivity import STARTS, Sensitivity
from mlrs_bench.report.standings import NEAR, Standing
from mlrs_bench.report.wording import NOTHING, interval, share

EVERY = "all"
"""The group of rows of every optimizer."""
Standings = Mapping[tuple[str, str], Standing]
"""By group of rows and method."""

GAP, GAP_LOW = 1.0, 0.9
NEAR_SHARE = 0.8
WORST_EXCESS = 0.10
WORST_MOVE = 0.03


class Status(enum.Enum):
    """Whether a target is kept."""

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


def verdict(parts: Iterable[bool | None]) -> Status:
    """Return whether all parts hold: one that fails misses; else one that is None is not measured."""
    known = list(parts)
    if False in known:
        return Status.MISSED
    return Status.UNMEASURED if None in known or not known else Status.MET


def targets(
    standings: Standings, stability: Mapping[str, Stability], moves: Sequence[Sensitivity]
) -> tuple[Target, ...]:
    """Return every target with its figure, from what was measured of the advised method."""
    advised = standings.get((EVERY, ADVISED))
    return (
        _gap(advised),
        _beats_untuned(standings),
        _near(advised),
        _worst(advised),
        _stable(stability.get(ADVISED)),
        _typical_move(moves),
        _worst_move(moves),
        _ablation(standings.get((EVERY, ABLATION))),
    )


def _gap(advised: Standing | None) -> Target:
    gap = advised.gap if advised else None
    kept = None if gap is None else gap.point >= GAP and gap.low >= GAP_LOW
    measured = f"{interval(gap)}, {advised.gap_rows} rows" if advised and gap else NOTHING
    goal = f"IQM ≥ {GAP:.1f}, lower end of its interval ≥ {GAP_LOW:.1f}"
    return Target("gap to the best tuned schedule closed", goal, measured, verdict([kept]))


def _beats_untuned(standings: Standings) -> Target:
    parts: list[bool | None] = []
    said = []
    for group in sorted({group for group, _ in standings} - {EVERY}):
        apart = {
            method: _apart(standings[group, method])
            for method in untuned(method for each, method in standings if each == group)
        }
        parts += apart.values() or [None]
        others = [method for method, kept in apart.items() if not kept]
        kept = f"{len(apart) - len(others)} of {len(apart)}"
        said.append(f"{group}: {kept}" + (f" (not {', '.join(others)})" if others else ""))
    return Target(
        "better than every untuned method, for each optimizer",
        "IQM of gap closed above theirs on common rows, intervals apart",
        "; ".join(said) or NOTHING,
        verdict(parts),
    )


def _apart(other: Standing) -> bool | None:
    if other.common_gap is None or other.advised_gap is None:
        return None
    return other.advised_gap.above(other.common_gap)


def _near(advised: Standing | None) -> Target:
    near = advised.near if advised else None
    kept = None if near is None else near >= NEAR_SHARE
    goal = f"at most {share(NEAR)} above it on ≥ {share(NEAR_SHARE)} of rows"
    measured = NOTHING if near is None else f"{share(near)} of rows"
    return Target("final loss near the best tuned one's", goal, measured, verdict([kept]))


def _worst(advised: Standing | None) -> Target:
    worst = advised.worst_log_ratio if advised else None
    kept = None if worst is None else worst <= math.log1p(WORST_EXCESS)
    goal = f"on no row more than {share(WORST_EXCESS)} above it"
    measured = (
        f"{share(math.expm1(worst), '+.1f')} ({advised.worst_row})"
        if advised and worst is not None
        else NOTHING
    )
    return Target("final loss never far from it", goal, measured, verdict([kept]))


def _stable(advised: Stability | None) -> Target:
    kept = None if advised is None else advised.diverged == 0
    measured = f"{advised.diverged} of {advised.runs} runs" if advised else NOTHING
    return Target("divergences", "0, whatever the start", measured, verdict([kept]))


def _typical_move(moves: Sequence[Sensitivity]) -> Target:
    found = {each.start: each.median_move for each in moves if each.method == ADVISED}
    return _move("median row", found)


def _worst_move(moves: Sequence[Sensitivity]) -> Target:
    found = {each.start: each.worst_move for each in moves if each.method == ADVISED}
    return _move("every row", found)


def _move(which: str, moves: Mapping[float, float | None]) -> Target:
    sizes = {start: moves.get(start) for start in STARTS}
    kept = [None if move is None else abs(move) < WORST_MOVE for move in sizes.values()]
    said = [f"x{start:g}: {share(move, '+.1f')}" for start, move in sizes.items() if move is not None]
    goal = f"ln(L / L_best) moves by less than {share(WORST_MOVE)}"
    return Target(f"start ten times off, {which}", goal, "; ".join(said) or NOTHING, verdict(kept))


def _ablation(ablation: Standing | None) -> Target:
    kept = _apart(ablation) if ablation else None
    measured = (
        f"{interval(ablation.common_gap)} against {interval(ablation.advised_gap)}" if ablation else NOTHING
    )
    goal = "IQM of gap closed below the full network's, intervals apart"
    return Target(f"without the loss ({ABLATION}) clearly worse", goal, measured, verdict([kept]))
