"""The histogram of how long messages take."""

from __future__ import annotations

import math

from mlrs_server.telemetry.latency import BOUNDS_S, LatencyHistogram


def test_a_duration_counts_in_its_bucket() -> None:
    """A duration counts where it is at most the bound; one beyond all bounds counts in the last bucket."""
    histogram = LatencyHistogram()
    for duration_s in (0.0, BOUNDS_S[0], math.nextafter(BOUNDS_S[0], 1.0), 0.5, 1.0, 1.5, 600.0):
        histogram.note(duration_s)
    expected = [0] * (len(BOUNDS_S) + 1)
    expected[0], expected[1], expected[-3], expected[-2], expected[-1] = 2, 1, 1, 1, 2
    assert list(histogram.counts) == expected
    assert histogram.sum_s == 0.0 + 2 * BOUNDS_S[0] + 0.5 + 1.0 + 1.5 + 600.0


def test_bounds_ascend() -> None:
    """The bounds ascend from 25 microseconds to a second, as a bisection needs them."""
    assert list(BOUNDS_S) == sorted(set(BOUNDS_S))
    assert (BOUNDS_S[0], BOUNDS_S[-1]) == (25e-6, 1.0)
