"""A histogram of how long messages take: two readings of the clock and a bisection for each message."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence

BOUNDS_S = (
    *(25e-6, 50e-6, 100e-6, 250e-6, 500e-6),
    *(1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3),
    *(0.1, 0.25, 0.5, 1.0),
)
"""The upper bounds of the buckets, in seconds, ascending; the last bucket has none."""

now_s = time.perf_counter
"""Reads the clock of the histogram, in seconds."""


class LatencyHistogram:
    """Counts durations by bucket. One thread writes it, any thread reads it."""

    __slots__ = ("_counts", "sum_s")

    def __init__(self) -> None:
        """Start at 0."""
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0
        """All durations together, in seconds."""

    @property
    def counts(self) -> Sequence[int]:
        """How many durations each bucket has: up to its bound, and above the one before; then the rest."""
        return tuple(self._counts)

    def note(self, duration_s: float) -> None:
        """Count a duration, in seconds."""
        self._counts[bisect_left(BOUNDS_S, duration_s)] += 1
        self.sum_s += duration_s
