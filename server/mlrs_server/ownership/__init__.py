"""Which replica has which runs.

Runs fall into 256 shards. Where one daemon has the store to itself, it owns them all (`SoleOwner`). Replicas
over one database share them (`SharedOwnership`): a replica has a lease, which it renews, and a shard has an
owner and an epoch. A shard whose owner's lease has run out may be claimed, which counts its epoch up; every
transaction that writes checks the epochs of the shards it is about. The lease makes for liveness, the epoch
for safety: a replica that was cut off, or stopped and woken, writes nothing.

    protocol.py     what the daemon asks of either
    sole.py         one daemon
    shared.py       replicas: what this one holds, and whom else to ask
    leases.py       the tables
    preference.py   which replica a shard should be with
"""

from __future__ import annotations

from mlrs_server.ownership.leases import Leases
from mlrs_server.ownership.protocol import Ownership
from mlrs_server.ownership.shared import SharedOwnership
from mlrs_server.ownership.sole import SoleOwner

__all__ = ["Leases", "Ownership", "SharedOwnership", "SoleOwner"]
