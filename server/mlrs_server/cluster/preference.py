"""Which replica a shard should be with: rendezvous hashing, so that all agree and few shards ever move."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from mlrs_server.cluster.leases import ReplicaLease


def preferred(replicas: Iterable[ReplicaLease], shard: int) -> ReplicaLease | None:
    """Return the replica that a shard should be with, of those that are not draining; `None`: there is none.

    When a replica comes or goes, only the shards that it gets or had change their preference (Thaler and
    Ravishankar, 1998, "Using name-based mappings to increase hit rates").
    """
    return max(
        (replica for replica in replicas if not replica.draining),
        key=lambda replica: _weight(replica.id, shard),
        default=None,
    )


def _weight(replica_id: str, shard: int) -> bytes:
    return hashlib.blake2b(f"{replica_id}/{shard}".encode(), digest_size=8).digest()
