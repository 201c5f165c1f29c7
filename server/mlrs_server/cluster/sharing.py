"""What a daemon needs that shares its store with others, put together."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from mlrs_server.cluster.leases import Leases
from mlrs_server.cluster.membership import SharedOwnership
from mlrs_server.cluster.replica import Replica
from mlrs_server.errors import invalid_field
from mlrs_server.live.live import LiveRuns
from mlrs_server.runs.watchers import Watchers
from mlrs_server.storage import SqlStore


class Sharing:
    """A replica in the making: first its ownership, which the runs need, then its place among others."""

    def __init__(self, store: SqlStore, *, lease_s: float) -> None:
        """`store` is asked, from now on, to write only what this replica owns."""
        self._leases = Leases(store, secrets.token_hex(8), lease_s=lease_s)
        self._executor = ThreadPoolExecutor(1, "mlrs-leases")
        self.ownership = SharedOwnership(self._leases, self._executor)
        store.fence = self.ownership

    def owned(self) -> Collection[int]:
        """Return the shards whose runs this replica may write."""
        return self.ownership.epochs.keys()

    async def join(self, live: LiveRuns, watchers: Watchers, address: str) -> Replica:
        """Take a place among the replicas, under the address where clients reach this one.

        Raises:
            AdvisorError: the database cannot be asked.
        """
        self._leases.address = address
        replica = Replica(self.ownership, live, watchers, lease_s=self._leases.lease_s)
        await replica.reconcile()
        replica.start()
        return replica

    def close(self) -> None:
        """Give up the thread; what it has not begun, it will not do."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def check_advertised(address: str) -> None:
    """Check that clients can be sent to an address.

    Raises:
        AdvisorError: it stands for all addresses of a machine, and a client would take it for its own.
    """
    try:
        everywhere = ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).is_unspecified
    except ValueError:  # a name, or a unix socket
        return
    if everywhere:
        raise invalid_field(
            "advertise",
            f"daemons that share a store send clients to each other, and {address} is nowhere to send them; "
            "say with --advertise HOST:PORT where clients reach this one",
        )
