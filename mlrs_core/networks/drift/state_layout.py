"""What a run of the drift network remembers besides its cell: where in its state each number is."""

from __future__ import annotations

from mlrs_core.networks.drift.constants import EXTRAS, SCALES

VARIANCE, BEST, SUM, COUNT, AGE, HIGH, LOW, REF, MODE = range(SCALES, EXTRAS)
"""Entries after the averages. AGE counts ticks; HIGH + LOW is the log-LR over the default one; MODE is 0
before the first loss, then 1 if that was positive, else 2."""

REACHED, LIMITED, BOUND = 1, 2, 3
"""How a tick met its aim: it is there; it moved towards it as far as it may; it is at its least
or greatest."""
