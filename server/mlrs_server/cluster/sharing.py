"""The parts of a daemon that shares its store with others, assembled."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from mlrs_server.cluster.leases import Leases
from mlrs_server.cluster.membership import SharedOwnership
from mlrs_server.cluster.replica import Replica
from mlrs_server.errors import invalid_field
from mlrs_server.live.live_runs import LiveRuns
from mlrs_server.runs.watchers import Watchers
from mlrs_server.storage import SqlStore


class Sharing:
    """The parts of a replica: its ownership, which runs need first, and later its membership."""

    def __init__(self, store: SqlStore, *, lease_s: float) -> None:
        """From now on `store` writes only runs of shards that this replica holds."""
        self._leases = Leases(store, secrets.token_hex(8), lease_s=lease_s)
        self._executor = ThreadPoolExecutor(1, "mlrs-leases")
        self.ownership = SharedOwnership(self._leases, self._executor)
        store.fence = self.ownership

    def held_shards(self) -> Collection[int]:
        """Return the shards that this replica holds, whose runs it may write."""
        return self.ownership.epochs.keys()

    async def join(self, live: LiveRuns, watchers: Watchers, address: str) -> Replica:
        """Join the replicas under the address that clients use for this one.

        Raises:
            AdvisorError: the database cannot be read or written.
        """
        self._leases.address = address
        replica = Replica(self.ownership, live, watchers, lease_s=self._leases.lease_s)
        await replica.reconcile()
        replica.start()
        return replica

    def close(self) -> None:
        """Stop the thread; work that it has not begun is cancelled."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def check_advertised(address: str) -> None:
    """Check that clients can connect to an address.

    Raises:
        AdvisorError: it is the wildcard address, with which a client would connect to its own machine.
    """
    try:
        everywhere = ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).is_unspecified
    except ValueError:  # a name, or a unix socket
        return
    if everywhere:
        raise invalid_field(
            "advertise",
            f"daemons that share a store send clients to each other, and none can connect to {address}; "
            "give the address that clients use for this one with --advertise HOST:PORT",
        )
