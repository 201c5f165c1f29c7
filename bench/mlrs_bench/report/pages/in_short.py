"""The beginning of `quality.md`: what the advice is worth, where it wins and loses, and what to do then."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlrs_bench.report.figures.comparisons import NEAR
from mlrs_bench.report.figures.methods import ADVISED, BEST_TUNED, COSINE
from mlrs_bench.report.figures.rows import Row
from mlrs_bench.report.figures.statistics import Outcome
from mlrs_bench.report.figures.summary import Summary
from mlrs_bench.report.figures.targets import EVERY
from mlrs_bench.report.figures.wording import interval, share

MOST_NAMED = 5
"""The rows that are named in a line at most, those with the largest differences."""


def in_short(summary: Summary) -> str:
    """Return a few lines; none where the advice or its yardsticks did not run."""
    advised = summary.comparisons.get((EVERY, ADVISED))
    if advised is None or advised.gap is None:
        return ""
    rows = [row for row in summary.rows if row.outcome(ADVISED, BEST_TUNED) is not None]
    won, lost = (_named(rows, outcome) for outcome in (Outcome.WIN, Outcome.LOSS))
    tied = sum(row.outcome(ADVISED, BEST_TUNED) is Outcome.TIE for row in rows)
    worth = (
        f"After a search, untuned advice (`{ADVISED}`) closes {interval(advised.gap)} of the gap between the "
        "default learning rate, kept constant, and the best of three schedules whose learning rate was tuned "
        f"on each row; its own steps are charged. It ends within {share(NEAR)} of that schedule on "
        f"{share(advised.near)} of {advised.ratio_rows} rows."
    )
    cosine = summary.comparisons.get((EVERY, COSINE))
    if cosine is not None and cosine.gap is not None:
        worth += f" A cosine from the default learning rate closes {interval(cosine.gap)}."
    instead = (
        "where one was tuned for this very task and horizon, or a task is like those that it loses on. "
        f"Tuning took {_trainings(summary)} trainings a row."
    )
    lines = [
        f"**What it is worth.** {worth}",
        f"**Where it wins** against that schedule, beyond the noise: {won}. It ties on {tied} rows.",
        f"**Where it loses**: {lost}.",
        f"**When to use a tuned schedule instead**: {instead}",
    ]
    return "".join(f"- {line}\n" for line in lines)


def _named(rows: Sequence[Row], outcome: Outcome) -> str:
    """Return the number of rows with an outcome, and the names of those that differ most."""
    ratios = {row.name: row.log_ratio(ADVISED) for row in rows if row.outcome(ADVISED, BEST_TUNED) is outcome}
    known = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    ranked = sorted(known, key=lambda name: -abs(known[name]))
    named = ", ".join(f"{name} ({100 * math.expm1(known[name]):+.0f} %)" for name in ranked[:MOST_NAMED])
    count = "1 row" if len(ratios) == 1 else f"{len(ratios)} rows"
    if not named:
        return count
    return f"{count}, {'the most on ' if len(ratios) > MOST_NAMED else ''}{named}"


def _trainings(summary: Summary) -> str:
    """Return how many trainings tuning took a row, for the three schedules together."""
    costs = [cost for cost in summary.tuning.values() if cost.rows]
    rows = max((cost.rows for cost in costs), default=0)
    return f"{sum(cost.runs for cost in costs) / rows:.0f}" if rows else "no"
