"""Figures as text, the same in tables, targets and pictures."""

from __future__ import annotations

from mlrs_bench.report.figures.bootstrap import Estimate
from mlrs_bench.report.figures.comparisons import Matchup

NOTHING = "-"
"""What stands where there is no figure."""


def interval(estimate: Estimate | None, form: str = ".2f") -> str:
    """Return an estimate: its point, and its interval in brackets."""
    if estimate is None:
        return NOTHING
    return f"{estimate.point:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def record(matchup: Matchup) -> str:
    """Return wins, ties and losses."""
    undecided = f" (+{matchup.undecided} undecided)" if matchup.undecided else ""
    return f"{matchup.wins} / {matchup.ties} / {matchup.losses}{undecided}"


def loss(value: float | None) -> str:
    """Return a loss in four digits."""
    return NOTHING if value is None else f"{value:.4g}"


def signed(value: float | None) -> str:
    """Return a log ratio with its sign."""
    return NOTHING if value is None else f"{value:+.3f}"


def share(value: float | None, form: str = ".0f") -> str:
    """Return a share in percent."""
    return NOTHING if value is None else f"{100 * value:{form}} %"
