"""The replicas over a store for people who look at them, and the unfinished runs of a tenant at each."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlrs_server.cluster.membership import SharedOwnership
from mlrs_server.domain.shards import SHARDS
from mlrs_server.errors import AdvisorError
from mlrs_server.live.stored_runs import StoredRuns
from mlrs_server.storage import Store

LONGEST_WAIT_S = 1.0
"""How long a reader waits for a count, in seconds; after that it gets the one before."""
REST, LEAST_REST_S = 49, 1.0
"""The pause after a count, as a multiple of its duration, and the shortest pause, in seconds: a count reads
all runs of a tenant, and flushes wait for it."""


@dataclass(frozen=True, kw_only=True)
class ReplicaStatus:
    """A replica, or a daemon that shares its store with no other."""

    address: str
    """Where clients reach it."""
    is_answering: bool
    """Whether it is this daemon."""
    shards: int
    """The number of shards that it owns."""
    unfinished_runs: int | None
    """The number of unfinished runs of the tenant in these shards; `None`: the store has not said yet."""
    lease_until: float | None
    """When its lease ends unless it is renewed, in seconds since the epoch; `None`: it needs no lease."""


class Overview:
    """The replicas over a store. Used from one event loop."""

    def __init__(self, stored: StoredRuns, ownership: SharedOwnership | None) -> None:
        """`ownership` is that of this replica; `None`: this daemon shares its store with no other."""
        self.address = ""
        """Where clients reach this daemon; set before the first call."""
        self._ownership = ownership
        self._unfinished = UnfinishedRuns(stored)

    async def replicas(self, tenant: str) -> Sequence[ReplicaStatus]:
        """Return the replicas by address, with the runs of a tenant; wait a second for the store at most.

        Replicas are as they were when this one renewed its lease last. Counts that the store does not return
        in time are as they were before, at first `None`.
        """
        by_shard = await self._unfinished.by_shard(tenant)
        if self._ownership is None:
            alone = ReplicaStatus(
                address=self.address,
                is_answering=True,
                shards=SHARDS,
                unfinished_runs=None if by_shard is None else sum(by_shard.values()),
                lease_until=None,
            )
            return [alone]
        shards, runs = Counter[str](), Counter[str]()
        for shard, owner in self._ownership.owners().items():
            shards[owner] += 1
            runs[owner] += (by_shard or {}).get(shard, 0)
        return [
            ReplicaStatus(
                address=replica.address,
                is_answering=replica.id == self._ownership.replica_id,
                shards=shards[replica.id],
                unfinished_runs=None if by_shard is None else runs[replica.id],
                lease_until=replica.lease_until,
            )
            for replica in sorted(self._ownership.replicas, key=lambda one: (one.address, one.id))
        ]


class UnfinishedRuns:
    """Counts the unfinished runs of tenants, seldom enough not to delay flushes. Of one event loop."""

    def __init__(self, stored: StoredRuns) -> None:
        """Count the runs that are stored."""
        self._stored = stored
        self._counts: dict[str, Mapping[int, int]] = {}
        self._due: dict[str, float] = {}
        self._counting: dict[str, asyncio.Task[None]] = {}

    async def by_shard(self, tenant: str) -> Mapping[int, int] | None:
        """Return how many runs of a tenant are not finished, by shard, as of a moment ago, if it is known."""
        task = self._counting.get(tenant)
        if task is None and time.monotonic() >= self._due.get(tenant, 0.0):
            task = self._counting[tenant] = asyncio.create_task(self._count(tenant))
            task.add_done_callback(lambda _: self._counting.pop(tenant))
        if task is not None:  # calls at the same time share a count
            done, _ = await asyncio.wait({task}, timeout=LONGEST_WAIT_S)
            for one in done:
                one.result()  # raises if it failed by a defect
        return self._counts.get(tenant)

    async def _count(self, tenant: str) -> None:
        took_s = 0.0

        def count(store: Store) -> Mapping[int, int]:
            nonlocal took_s
            start = time.monotonic()
            try:
                return store.unfinished_by_shard(tenant)
            finally:
                took_s = time.monotonic() - start

        try:
            self._counts[tenant] = await self._stored.in_store(count)
        except AdvisorError:
            pass  # the state of the store is reported for itself
        finally:
            self._due[tenant] = time.monotonic() + max(REST * took_s, LEAST_REST_S)
