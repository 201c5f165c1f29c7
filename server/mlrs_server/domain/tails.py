"""The schedules that the daemon itself gives to runs: after a search, and from the memory of a task."""

from __future__ import annotations

import math

from mlrs_core.config import ScheduleKind, ScheduleSpec

WARMUP_SHARE = 0.05
"""The share of the horizon in which they warm up."""


def tail(kind: ScheduleKind, horizon: int, base_lr: float | None = None) -> ScheduleSpec:
    """Return a schedule for a horizon, by default without a base LR, which a search puts in its place."""
    warmup = min(math.ceil(WARMUP_SHARE * horizon), horizon - 1)
    return ScheduleSpec(kind, base_lr=base_lr, warmup=warmup)
