"""The stratified bootstrap: how far an average over rows would move with other seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlrs_bench.report.figures.statistics import Floats, interquartile_mean

RESAMPLES = 2_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure and its confidence interval."""

    point: float
    low: float
    high: float

    def above(self, other: Estimate) -> bool:
        """Return whether this interval lies wholly above the other."""
        return self.low > other.high


def stratified_estimate(
    strata: Sequence[Floats],
    generator: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Return the interquartile mean of all scores, with a percentile bootstrap interval.

    Seeds are drawn with replacement within each row, never rows (Agarwal et al. 2021, section 4.1):
    the interval speaks of the noise of trainings on these rows, not of other tasks. Scores are
    merged over rows before trimming, as in the paper; rows weigh the same however many seeds they have.

    Args:
        strata: a row's scores each, (seeds,) float64, finite, at least two.
        generator: where the resamples come from.
        resamples: how many.
        confidence: what the interval covers, between 0 and 1.

    Raises:
        ValueError: there is no row, or a row has fewer than two scores.
    """
    if not strata or min(row.size for row in strata) < 2:
        raise ValueError("strata: give one row or more, and two scores or more for each")
    weights = np.concatenate([np.full(row.size, 1.0 / row.size) for row in strata])
    drawn = [row[generator.integers(row.size, size=(resamples, row.size))] for row in strata]
    resampled = interquartile_mean(np.concatenate(drawn, axis=1), weights)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(resampled, [tail, 1.0 - tail])
    point = interquartile_mean(np.concatenate(strata), weights)
    return Estimate(float(point), float(low), float(high))
