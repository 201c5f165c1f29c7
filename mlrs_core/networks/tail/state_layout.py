"""What a run of the tail network remembers besides its cell: where in its state each number is."""

from __future__ import annotations

from mlrs_core.networks.tail.constants import SCALES

(
    VARIANCE,
    BEST,
    SUM,
    COUNT,
    AGE,
    HIGH,
    LOW,
    GATE,
    REF,
    MODE,
) = range(SCALES, SCALES + 10)
"""Entries after the averages of the loss. AGE counts looks; HIGH + LOW is the drift, GATE the other part of
the correction; MODE is 0 before the first loss, then 1 if that was positive, else 2."""
(
    UPDATE_SUM,
    UPDATE_COUNT,
    CROSS_SUM,
    ALONG_SUM,
    ALIGNED_COUNT,
    UPDATE,
    UPDATE_SLOW,
    UPDATE_AGE,
    CROSS,
    ALONG,
    CROSS_SLOW,
    ALONG_SLOW,
    ALIGNED_AGE,
) = range(MODE + 1, MODE + 14)
"""Signals: sums and counts since the last look; averages over looks, fast and slow; looks that had any."""
(
    VALID,
    VALID_BEFORE,
    VALID_BEST,
    VALID_SHARE,
    VALID_BEST_SHARE,
    VALID_COUNT,
) = range(ALIGNED_AGE + 1, ALIGNED_AGE + 7)
"""Validation losses: the newest, the one before, the best; the shares of the horizon at which the newest and
the best came; how many there were, at most 2."""
EXTRAS = VALID_COUNT + 1
"""Entries of a run's state besides the cell's."""
