"""How runs of a task end, over what they are advised under: a mixture of Gaussian processes.

The score of a run is a level, plus a curve over the octaves of its learning rate, plus what its tail adds to
that curve, plus noise. How much the curve varies and how noisy runs are differs from task to task, so every
combination of a few scales is fitted, and each counts by its probability given the runs (Rasmussen and
Williams 2006, equation 2.30). The numbers were fitted to the tuning trainings of the quality benchmark; ADR
0029 says how.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlrs_core.policy import Floats

Whole = npt.NDArray[np.int64]

SCALES = np.array([0.03, 0.06, 0.12, 0.24, 0.48])
"""How much the curve may vary: standard deviations of the score."""
SCALE_SHARES = np.array([0.06, 0.26, 0.48, 0.17, 0.03])
"""How probable each is."""
NOISES = np.array([0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32])
"""How much runs that differ in nothing but their seed differ: standard deviations of the score."""
NOISE_SHARES = np.array([0.03, 0.21, 0.14, 0.21, 0.28, 0.08, 0.05])
"""How probable each is."""
LENGTH = 1.6
"""The octaves over which the curve changes."""
SLOPE = 0.1
"""The part of the curve that is a straight line, a share of its scale an octave."""
OWN, OWN_LENGTH = 0.45, 1.5
"""What a tail adds: a share of the scale, and the octaves over which it changes."""
BEND, BEND_AT, MOST_BEND = 0.03, 0.3, 0.4
"""The curve that is expected before any run ended: this share of the scale times the square of the octaves
from there, at most `MOST_BEND`."""
LEVEL = 0.3
"""The standard deviation of the level, above the best run."""
WORST = 0.5
"""A score that is higher than the best by more counts as this much higher; so does a run that diverged."""


LEAST_SHARE = 1e-6
"""A combination of scales that is less probable, given the runs, does not count."""


@dataclass(frozen=True)
class Points:
    """What n runs are, or could be, advised under. All are (n,)."""

    octaves: Floats
    """Of their learning rates, from a common one that is near the best."""
    lines: Whole
    """What they follow: numbers of tails and models."""
    shapes: Whole
    """Numbers of curves: runs of all tails share a curve, and those of a model have their own."""
    levels: Whole
    """Numbers of levels: runs of other horizons or batch sizes end at another loss."""

    def __len__(self) -> int:
        """Return n."""
        return len(self.octaves)

    @classmethod
    def of(cls, rows: Sequence[tuple[float, int, int, int]]) -> Points:
        """Return the points of rows of octave, line, shape and level."""
        table = np.array(rows, np.float64).reshape(-1, 4)
        return cls(table[:, 0].copy(), *(table[:, column].astype(np.int64) for column in (1, 2, 3)))


@dataclass(frozen=True)
class Surface:
    """The fitted scores of m points, in h combinations of scales."""

    shares: Floats
    """How probable each combination is, (h,)."""
    means: Floats
    """(h, m)."""
    deviations: Floats
    """The standard deviations of the scores without noise, (h, m)."""
    noises: Floats
    """The standard deviation of the noise, (h,)."""
    _solved: Floats
    """(h, n, m)."""
    _scales: Floats
    _points: Points

    @property
    def mean(self) -> Floats:
        """The expected scores, (m,)."""
        return np.asarray(self.shares @ self.means)

    @property
    def deviation(self) -> Floats:
        """The standard deviations of the scores over all combinations, without noise, (m,)."""
        variances = self.shares @ (self.deviations**2 + (self.means - self.mean) ** 2)
        return np.asarray(np.sqrt(variances))

    @property
    def noise(self) -> float:
        """The standard deviation of a run around its expected score."""
        return math.sqrt(float(self.shares @ self.noises**2))

    def against(self, reference: int) -> tuple[Floats, Floats]:
        """Return how much higher all scores are than that of one point: means and deviations, (h, m) both."""
        means = self.means - self.means[:, [reference]]
        kernel = _kernel(self._points, _only(self._points, reference), self._scales)[:, :, 0]
        shared = kernel - np.einsum("hnm,hn->hm", self._solved, self._solved[:, :, reference])
        own = self.deviations**2
        variances = own + own[:, [reference]] - 2 * shared
        return means, np.sqrt(np.maximum(variances, 1e-14))


def fitted(runs: Points, scores: Floats, weights: Floats, at: Points) -> Surface:
    """Return the surface at some points, by the combinations of scales that are not improbable.

    Args:
        runs: what n runs were advised under, at least one.
        scores: how much higher than the best they ended, (n,), 0 to `WORST`.
        weights: how much each counts, (n,), > 0 and <= 1: its noise has a variance larger by 1 / weight.
        at: the points, m of them.
    """
    scales, noises = np.repeat(SCALES, len(NOISES)), np.tile(NOISES, len(SCALES))
    priors = np.log(np.outer(SCALE_SHARES, NOISE_SHARES).reshape(-1))
    noise = noises[:, None, None] ** 2 * np.diag(1.0 / weights)
    factors = np.linalg.cholesky(_kernel(runs, runs, scales) + noise)
    above = scores - _bent(runs, scales)
    residuals = np.linalg.solve(factors, above[:, :, None])[:, :, 0]
    determinants = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    logs = priors - (residuals**2).sum(axis=1) / 2 - determinants
    shares = np.exp(logs - logs.max())
    shares /= shares.sum()
    kept = shares >= LEAST_SHARE
    shares, scales, noises = shares[kept] / shares[kept].sum(), scales[kept], noises[kept]
    solved = np.linalg.solve(factors[kept], _kernel(runs, at, scales))
    means = _bent(at, scales) + np.einsum("hnm,hn->hm", solved, residuals[kept])
    own = LEVEL**2 + scales[:, None] ** 2 * (1.0 + SLOPE**2 * at.octaves**2 + OWN**2)
    variances = own - np.einsum("hnm,hnm->hm", solved, solved)
    return Surface(shares, means, np.sqrt(np.maximum(variances, 1e-14)), noises, solved, scales, at)


def _kernel(left: Points, right: Points, scales: Floats) -> Floats:
    """Return the covariances of the scores of two sets of points, (h, n, m)."""
    apart = left.octaves[:, None] - right.octaves[None, :]
    curve = np.exp(-0.5 * (apart / LENGTH) ** 2) + SLOPE**2 * np.outer(left.octaves, right.octaves)
    own = OWN**2 * np.exp(-0.5 * (apart / OWN_LENGTH) ** 2)
    same_shape, same_line, same_level = (
        mine[:, None] == theirs[None, :]
        for mine, theirs in (
            (left.shapes, right.shapes),
            (left.lines, right.lines),
            (left.levels, right.levels),
        )
    )
    varying = same_shape * curve + same_line * own
    return np.asarray(scales[:, None, None] ** 2 * varying + LEVEL**2 * same_level)


def _bent(points: Points, scales: Floats) -> Floats:
    """Return the scores that are expected before any run ended, (h, n)."""
    bent = BEND * scales[:, None] * (points.octaves[None, :] - BEND_AT) ** 2
    return np.asarray(np.minimum(bent, MOST_BEND))


def _only(points: Points, index: int) -> Points:
    part = slice(index, index + 1)
    return Points(points.octaves[part], points.lines[part], points.shapes[part], points.levels[part])
