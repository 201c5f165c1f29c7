"""Where in a run's state each number of meta mode is.

A state is the frozen policy's, then traces (what steps saw that the learning rate depends on, for the
architecture to say), then these, then Adam's steps for each snapshot. Numbers are float32; counts stay at
2**24, where adding 1 changes nothing.
"""

from __future__ import annotations

from mlrs_core.adapting.protocol import MetaCounters, Vector

(
    UPDATES,
    CLIPPED,
    SCALED,
    RETURNS,
    CHANGE,
    ADAPTED,
    APPLIED,
    SIZE,
    SIZED,
    FRESH,
    BAD,
    SEEN,
    FIRST,
    FAST,
    SLOW,
    WIDTH,
    GOOD_MEAN,
    GOOD_WIDTH,
    PENDING,
    SINCE,
) = range(20)
"""UPDATES, CLIPPED, SCALED, RETURNS: counts. CHANGE: the last log change. ADAPTED: 1 if the newest step has
had its update. APPLIED: updates that were not idle. SIZE: the typical size of an alignment. SIZED: how many
alignments it is computed from. FRESH: 1 if the newest step asked the network. BAD: how many of the last
losses, without a gap, were not finite. SEEN: how many finite losses the averages are of. FIRST: the size of
the first finite loss of the run. FAST, SLOW: the averages. WIDTH: the typical deviation from the slow one.
GOOD_MEAN, GOOD_WIDTH: the slow average and the deviation that a blow-up is measured by. PENDING: 1 if the
weights have moved since they were last known to be good. SINCE: finite losses since then."""
SCALARS = 20
"""How many numbers there are."""
RING = 4
"""How many traces of updates are stored: the newest ones."""


def counters_of(state: Vector, start: int) -> MetaCounters:
    """Return what became of a run's meta updates.

    Args:
        state: the run's, (state_size,).
        start: where in it these numbers begin; `AdaptivePolicy.counters_at` says so.
    """
    scalars = state[start:]
    updates, clips, scaled, returns = (int(scalars[at]) for at in (UPDATES, CLIPPED, SCALED, RETURNS))
    return MetaCounters(updates, clips, scaled, returns, float(scalars[CHANGE]), bool(scalars[ADAPTED]))
