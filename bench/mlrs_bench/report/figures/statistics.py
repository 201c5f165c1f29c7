"""Robust averages over runs, and when two methods differ on a row."""

from __future__ import annotations

import enum
import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

STANDARD_ERRORS = 2.0
"""How many standard errors of the paired difference make a difference."""


class Outcome(enum.Enum):
    """How one method did against another on a row."""

    WIN = "win"
    TIE = "tie"
    LOSS = "loss"
    UNDECIDED = "undecided"
    """Fewer than two seeds are shared, so the noise is unknown."""


def interquartile_mean(values: Floats, weights: Floats) -> Floats:
    """Return the weighted mean of the middle half of the values (Agarwal et al. 2021, section 4.3).

    A value on the border of the middle half counts with the part of its weight that lies inside, so
    the result is also defined for few values; with equal weights and a number of values that four
    divides, it is the mean without the lowest and the highest quarter.

    Args:
        values: (..., n) float64, finite.
        weights: (n,) float64, positive; one a value, any scale.

    Returns:
        (...) float64.
    """
    order = np.argsort(values, axis=-1)
    share = weights[order] / weights.sum()
    upper = np.cumsum(share, axis=-1)
    inside = np.clip(np.minimum(upper, 0.75) - np.maximum(upper - share, 0.25), 0.0, None)
    middle = np.take_along_axis(values, order, axis=-1)
    return np.asarray((inside * middle).sum(axis=-1) / inside.sum(axis=-1), dtype=np.float64)


def standard_error(values: Floats) -> float:
    """Return the standard error of the mean of values, (n,) float64 with n >= 2."""
    return float(values.std(ddof=1)) / math.sqrt(values.size)


def outcome(losses: Floats, others: Floats) -> Outcome:
    """Return how a method with these losses did against another, seed by seed.

    Args:
        losses: (n,) float64, one a seed.
        others: (n,) float64, the other method's on the same seeds.
    """
    if losses.size < 2:
        return Outcome.UNDECIDED
    difference = losses - others
    margin = STANDARD_ERRORS * standard_error(difference)
    mean = float(difference.mean())
    if mean < -margin:
        return Outcome.WIN
    return Outcome.LOSS if mean > margin else Outcome.TIE
