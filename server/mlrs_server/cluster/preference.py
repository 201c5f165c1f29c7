"""The preferred replica of each shard, by rendezvous hashing: all replicas agree, and few shards move."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from mlrs_server.cluster.leases import ReplicaLease


def preferred(replicas: Iterable[ReplicaLease], shard: int) -> ReplicaLease | None:
    """Return the preferred replica of a shard among those that are not draining; `None` if there are none.

    When a replica joins or leaves, only shards that it gets or had change their preference (Thaler and
    Ravishankar, 1998, "Using name-based mappings to increase hit rates").
    """
    return max(
        (replica for replica in replicas if not replica.draining),
        key=lambda replica: _weight(replica.id, shard),
        default=None,
    )


def _weight(replica_id: str, shard: int) -> bytes:
    return hashlib.blake2b(f"{replica_id}/{shard}".encode(), digest_size=8).digest()
