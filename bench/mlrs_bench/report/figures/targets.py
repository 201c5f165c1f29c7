"""What the advice promises, and whether the numbers keep it."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlrs_bench.report.figures.bookkeeping import Stability
from mlrs_bench.report.figures.comparisons import NEAR, Comparison
from mlrs_bench.report.figures.coverage import Coverage
from mlrs_bench.report.figures.methods import ABLATIONS, ADVISED, CONSTANT, NETWORK, TUNED
from mlrs_bench.report.figures.sensitivity import STARTS
from mlrs_bench.report.figures.wording import NOTHING, interval, share

EVERY = "all"
"""The group of rows of every optimizer."""
Comparisons = Mapping[tuple[str, str], Comparison]
"""By group of rows and method."""

GAP, GAP_LOW = 0.95, 0.90
"""What the advice closes of the gap, and what the lower end of its interval is at least."""
GAP_GOAL = 1.05
"""What it should close one day."""
NETWORK_GAP = 0.70
"""What the network closes of the gap without a search."""
NEAR_SHARE = 0.6
WORST_EXCESS = 0.10


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
    comparisons: Comparisons, stability: Mapping[str, Stability], covered: Coverage
) -> tuple[Target, ...]:
    """Return every target with its figure, from what was measured of the advised method."""
    advised = comparisons.get((EVERY, ADVISED))
    return (
        _gap(advised, covered),
        _network_gap(comparisons.get((EVERY, NETWORK)), covered),
        _near(advised, covered),
        _worst(advised, covered),
        _stable(stability.get(ADVISED), covered),
        _parts_help(comparisons, covered),
    )


def _gap(advised: Comparison | None, covered: Coverage) -> Target:
    gap = advised.gap if advised else None
    return Target(
        name="gap to the best tuned schedule closed",
        goal=f"IQM ≥ {GAP:.2f}, lower end of its interval ≥ {GAP_LOW:.2f}; the aim is {GAP_GOAL:.2f}",
        measured=interval(gap),
        status=verdict([None if gap is None else gap.point >= GAP and gap.low >= GAP_LOW]),
        judged=_of(advised.gap_rows if advised else 0, covered),
        complete=covered.complete((ADVISED, CONSTANT, *TUNED)),
    )


def _network_gap(network: Comparison | None, covered: Coverage) -> Target:
    gap = network.gap if network else None
    return Target(
        name=f"gap closed without a search, by {NETWORK} alone",
        goal=f"IQM ≥ {NETWORK_GAP:.2f}",
        measured=interval(gap),
        status=verdict([None if gap is None else gap.point >= NETWORK_GAP]),
        judged=_of(network.gap_rows if network else 0, covered),
        complete=covered.complete((NETWORK, CONSTANT, *TUNED)),
    )


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
    beyond = advised.most_beyond if advised else None
    return Target(
        name="final loss never far from the tuned ones",
        goal=f"on no row more than {share(WORST_EXCESS)} above the worst tuned schedule's",
        measured=f"{share(math.expm1(beyond), '+.1f')} ({advised.most_beyond_row})"
        if advised and beyond is not None
        else NOTHING,
        status=verdict([None if beyond is None else beyond <= math.log1p(WORST_EXCESS)]),
        judged=_of(advised.ratio_rows if advised else 0, covered),
        complete=covered.complete((ADVISED, *TUNED)),
    )


def _stable(advised: Stability | None, covered: Coverage) -> Target:
    ran = [covered.counts.get((ADVISED, start), {}) for start in (1.0, *STARTS)]
    return Target(
        name="trainings lost",
        goal="0, also from a start 10 or 100 times too low or too high",
        measured=f"{advised.lost} of {advised.runs} runs" if advised else NOTHING,
        status=verdict([None if advised is None else advised.lost == 0]),
        judged=_of(min(map(len, ran)), covered),
        complete=covered.complete([ADVISED], starts=(1.0, *STARTS)),
    )


def _parts_help(comparisons: Comparisons, covered: Coverage) -> Target:
    found = {name: each for name in ABLATIONS if (each := comparisons.get((EVERY, name))) is not None}
    return Target(
        name="each part of the advice helps",
        goal="gap closed lower without it, on common rows, intervals apart",
        measured="; ".join(f"{name}: {_against(each)}" for name, each in found.items()) or NOTHING,
        status=verdict([*map(advised_is_apart, found.values()), *([None] * (len(ABLATIONS) - len(found)))]),
        judged=_of(min((each.common_gap_rows for each in found.values()), default=0), covered),
        complete=covered.complete((ADVISED, *ABLATIONS, CONSTANT, *TUNED)),
    )


def advised_is_apart(other: Comparison) -> bool | None:
    """Return whether the advised method closes more of the gap, intervals apart; None: not known."""
    if other.common_gap is None or other.advised_gap is None:
        return None
    return other.advised_gap.above(other.common_gap)


def _against(other: Comparison) -> str:
    gaps = f"gap closed {interval(other.advised_gap)} against {interval(other.common_gap)}"
    return f"{gaps}, ln {interval(other.advised_ratio, '+.3f')}"


def _of(rows: int, covered: Coverage) -> str:
    return f"{rows} of {len(covered.rows)} rows"
