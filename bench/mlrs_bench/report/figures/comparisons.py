"""How one method did over many rows, and its wins, ties and losses against another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from mlrs_bench.report.figures.bootstrap import Estimate, stratified_estimate
from mlrs_bench.report.figures.methods import ADVISED, BEST_TUNED
from mlrs_bench.report.figures.rows import Row
from mlrs_bench.report.figures.statistics import Outcome

NEAR = 0.02
"""A final loss within this share of the best tuned one's is near it."""
ROUNDING = 1e-9
"""What a log ratio may be off by its arithmetic: the boundary itself is near."""


@dataclass(frozen=True)
class Matchup:
    """On how many rows one method won, tied and lost against another."""

    wins: int
    ties: int
    losses: int
    undecided: int
    """Rows where the two share fewer than two seeds."""

    @property
    def decided(self) -> int:
        """The rows that say something."""
        return self.wins + self.ties + self.losses


@dataclass(frozen=True)
class Comparison:
    """One method over the rows where it ran; None where no row defines the figure."""

    rows: int
    gap_rows: int
    """Rows behind `gap`."""
    gap: Estimate | None
    """Interquartile mean of gap closed."""
    common_gap: Estimate | None
    """Interquartile mean of gap closed on the rows where the advised method has one, too."""
    advised_gap: Estimate | None
    """The advised method's interquartile mean of gap closed on the rows of `common_gap`."""
    common_gap_rows: int
    """Rows behind `common_gap` and `advised_gap`."""
    log_ratio: Estimate | None
    """Interquartile mean of ln(L / L_best)."""
    median_log_ratio: float | None
    worst_log_ratio: float | None
    worst_row: str | None
    most_beyond: float | None
    """The largest ln(L / L of the row's worst tuned schedule)."""
    most_beyond_row: str | None
    ratio_rows: int
    """Rows behind the median, the two worst and `near`."""
    near: float | None
    """Share of rows with a loss within `NEAR` of the best tuned one's."""
    advised: Matchup
    """The advised method against this one."""
    advised_ratio: Estimate | None
    """Interquartile mean of ln(L_advised / L), seeds paired: below 0, the advised method is better."""


def matchup(rows: Sequence[Row], method: str, other: str) -> Matchup:
    """Return a method's wins, ties and losses against another over the rows that have both."""
    found = Counter(row.outcome(method, other) for row in rows)
    return Matchup(*(found[each] for each in (Outcome.WIN, Outcome.TIE, Outcome.LOSS, Outcome.UNDECIDED)))


def gap_closed(rows: Sequence[Row], method: str, *, seed: int) -> Estimate | None:
    """Return the interquartile mean of gap closed over the rows that define it with two seeds or more."""
    strata = [scores for row in rows if (scores := row.gap_scores(method)) is not None and scores.size > 1]
    return stratified_estimate(strata, np.random.default_rng(seed)) if strata else None


def log_ratio(
    rows: Sequence[Row], method: str, other: str = BEST_TUNED, *, seed: int
) -> tuple[Estimate | None, int]:
    """Return the interquartile mean of ln(L / L_other), as `gap_closed`, and how many rows define it."""
    found = [row.log_scores(method, other) for row in rows]
    strata = [scores for scores in found if scores is not None and scores.size > 1]
    estimate = stratified_estimate(strata, np.random.default_rng(seed)) if strata else None
    return estimate, len(strata)


def compare(rows: Sequence[Row], method: str, *, seed: int) -> Comparison:
    """Return how a method did over the rows where it ran.

    Args:
        rows: any; those without the method do not count.
        method: its name.
        seed: the seed of the bootstrap; the same one gives the same intervals.
    """
    rows = [row for row in rows if method in row.losses]
    scored = [row for row in rows if _has_gap(row, method)]
    common = [row for row in scored if _has_gap(row, ADVISED)]
    ratios = {row.name: ratio for row in rows if (ratio := row.log_ratio(method)) is not None}
    worst = max(ratios, key=ratios.__getitem__, default=None)
    beyond = {row.name: ratio for row in rows if (ratio := row.beyond_tuned(method)) is not None}
    furthest = max(beyond, key=beyond.__getitem__, default=None)
    gap = gap_closed(scored, method, seed=seed)
    return Comparison(
        rows=len(rows),
        gap_rows=len(scored),
        gap=gap,
        common_gap=gap if len(common) == len(scored) else gap_closed(common, method, seed=seed),
        advised_gap=gap_closed(common, ADVISED, seed=seed),
        common_gap_rows=len(common),
        log_ratio=log_ratio(rows, method, seed=seed)[0],
        median_log_ratio=float(np.median(list(ratios.values()))) if ratios else None,
        worst_log_ratio=None if worst is None else ratios[worst],
        worst_row=worst,
        most_beyond=None if furthest is None else beyond[furthest],
        most_beyond_row=furthest,
        ratio_rows=len(ratios),
        near=share_near(ratios.values()) if ratios else None,
        advised=matchup(rows, ADVISED, method),
        advised_ratio=log_ratio(rows, ADVISED, method, seed=seed)[0],
    )


def share_near(log_ratios: Collection[float]) -> float:
    """Return the share of log ratios, at least one, that are at most ln(1 + NEAR), up to rounding."""
    return sum(ratio <= math.log1p(NEAR) + ROUNDING for ratio in log_ratios) / len(log_ratios)


def _has_gap(row: Row, method: str) -> bool:
    scores = row.gap_scores(method)
    return scores is not None and scores.size > 1
