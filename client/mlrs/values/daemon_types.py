"""What a daemon reports of itself."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DaemonInfo:
    """Which daemon answers."""

    version: str
    """The version of its package."""
    start_time: dt.datetime
    """When it began to serve, in UTC."""
    exit_after_idle_s: float | None
    """After how many seconds without a call or a stream it ends by itself; `None`: it does not."""


@dataclass(frozen=True, kw_only=True)
class LatencyHistogram:
    """How long messages of observations took a daemon, without those of ranks, which wait for each other."""

    upper_bounds_s: tuple[float, ...]
    """The upper bounds of the buckets, in seconds, ascending."""
    counts: tuple[int, ...]
    """How many took at most as long as each bound and longer than the one before; last, those beyond all."""

    def bound_of(self, share: float) -> float | None:
        """Return the least bound, in seconds, that a share of the messages did not exceed.

        Args:
            share: 0 to 1; 0.5 gives a bound of the median.

        Returns:
            The bound; infinity beyond all bounds; `None`: there was no message.
        """
        total, below = sum(self.counts), 0
        for bound, count in zip((*self.upper_bounds_s, math.inf), self.counts, strict=False):
            below += count
            if total and below >= share * total:
                return bound
        return None


@dataclass(frozen=True, kw_only=True)
class StoreStatus:
    """The state of a daemon's store."""

    engine: str
    """`sqlite` or `postgresql`."""
    works: bool
    """Whether neither flushes nor renewals of the lease fail."""
    unstored_answers: int
    """Answers that are not stored yet."""
    since_flush_s: float | None
    """How many seconds ago the last flush stored something; `None`: none has."""
    flushes: int
    """Flushes that stored something."""
    flush_time_s: float
    """How many seconds these took together."""
    flush_failures: int
    """Flushes that failed."""


@dataclass(frozen=True, kw_only=True)
class ReplicaInfo:
    """A daemon over a store, as another one reports it."""

    address: str
    """Where clients reach it."""
    answering: bool
    """Whether it is the daemon that reports."""
    shards: int
    """How many of the 256 shards of runs it owns."""
    unfinished_runs: int | None
    """The caller's runs in these shards that are not finished, as of seconds ago; `None`: not known yet."""
    lease_until: dt.datetime | None
    """Until when its lease holds, in UTC; `None`: it does not share its store."""


@dataclass(frozen=True, kw_only=True)
class DaemonStatus:
    """How a daemon is. Counts are of this daemon, since it began to serve, over all tenants."""

    time: dt.datetime
    """The time of its clock, in UTC."""
    live_runs: int
    """The runs in its memory."""
    streams: int
    """The streams of observations that are open."""
    followers: int
    """The streams of records that are open."""
    answers: Mapping[str, int]
    """Answers to observations, by reason, such as `fresh`; reasons without any are left out."""
    refusals: Mapping[str, int]
    """Calls and observations that failed, by reason, such as `run_not_found`; `internal` is a defect."""
    latency: LatencyHistogram
    """How long messages of observations took."""
    pending_barriers: int
    """Steps that some ranks have reported, and not enough of them."""
    ranks_waiting: int
    """Ranks that wait at these for the others."""
    resident_memory_bytes: int
    """The memory of its process."""
    store: StoreStatus
    """The state of its store."""
    replicas: tuple[ReplicaInfo, ...]
    """The replicas over the same store, by address; the daemon alone where it does not share its store."""
