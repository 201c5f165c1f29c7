"""The ownership of a replica: the shards that it holds, and the addresses of the other owners."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import TypeVar, final

import sqlalchemy as sa

from mlrs_server.cluster.leases import Leases, Membership, ReplicaLease, check_epochs
from mlrs_server.cluster.preference import preferred
from mlrs_server.domain.ownership import Epochs
from mlrs_server.errors import AdvisorError, Reason, draining, invalid_field

T = TypeVar("T")


class _Changed:
    """A condition without a lock. `notify` does not await, so no other task runs in between."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Wake all waiting tasks, which check their conditions again."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait until a condition holds."""
        while not reached():
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)


@final
class SharedOwnership:
    """The shards of one of several replicas. Used from one event loop, except `check`."""

    def __init__(self, leases: Leases, executor: Executor) -> None:
        """`executor` has a thread of its own: leases must not wait for a flush."""
        self.replica_id = leases.replica_id
        self.draining = False
        """Whether this replica claims no more shards."""
        self._leases = leases
        self._executor = executor
        self._epochs: Epochs = {}
        self._membership = Membership({}, {})
        self._users: Counter[int] = Counter()
        self._moving: Counter[int] = Counter()
        self._changed = _Changed()

    @property
    def epochs(self) -> Epochs:
        """The shards held now, with their epochs."""
        return self._epochs

    @property
    def replicas(self) -> Collection[ReplicaLease]:
        """The replicas with valid leases, as they were when this one renewed its lease last."""
        return self._membership.replicas.values()

    def owners(self) -> Mapping[int, str]:
        """Return the id of each shard's owner; of other replicas' shards as of the last renewal."""
        others = {
            shard: owner for shard, (owner, _) in self._membership.owners.items() if owner != self.replica_id
        }
        return {**others, **dict.fromkeys(self._epochs, self.replica_id)}

    def check(self, connection: sa.Connection, shards: Collection[int]) -> None:
        """Check, in a transaction that writes runs of shards, that all are still held; on any thread.

        Raises:
            FencedError: another replica has claimed one.
        """
        check_epochs(connection, self._epochs, shards, self._leases.lease_s)

    # --------------------------------------------------------------------------- used by calls

    @asynccontextmanager
    async def acquired(self, shards: Collection[int]) -> AsyncIterator[None]:
        """Hold shards for the length of the block; see `Ownership`."""
        wanted = set(shards)
        while not (wanted <= self._epochs.keys() and self._may_change(wanted)):
            await self._changed.until(lambda: self._may_change(wanted))
            if missing := wanted - self._epochs.keys():
                await self._claim_or_refer(missing, all_missing=missing == wanted)
        self._users.update(wanted)
        try:
            yield
        finally:
            self._users.subtract(wanted)
            self._changed.notify()

    async def _claim_or_refer(self, missing: Collection[int], *, all_missing: bool) -> None:
        """Claim missing shards that are free and prefer this replica, or raise with their owner's address."""
        membership = await self.renew()
        free = membership.free()
        for shard in missing:
            owner = membership.replicas.get(membership.owners[shard][0])
            if shard in free:
                owner = preferred(membership.replicas.values(), shard)
            if owner is None:
                raise draining()
            if owner.id != self.replica_id:
                if not all_missing:
                    raise invalid_field(
                        "requests",
                        "the runs are at different replicas, so no one call can be about all of them; "
                        "create runs that belong together with a common `group`, or call for each alone",
                    )
                raise AdvisorError(
                    Reason.NOT_OWNER,
                    f"run_id: the replica at {owner.address} has the run; call there",
                    field="run_id",
                    owner=owner.address,
                )
        await self.claim(missing)

    # ------------------------------------------------------------------------ used by `Replica`

    async def renew(self) -> Membership:
        """Renew the lease; return the membership.

        Raises:
            AdvisorError: the database cannot be read or written.
        """
        self._membership = await self._in_database(lambda: self._leases.renew(draining=self.draining))
        return self._membership

    async def claim(self, shards: Collection[int]) -> None:
        """Claim those of the shards that are free.

        Raises:
            AdvisorError: as for `renew`.
        """
        got = await self._in_database(lambda: self._leases.claim(shards))
        self._epochs = {**self._epochs, **got}

    def lose(self, shards: Collection[int]) -> None:
        """Record that shards are not held any more."""
        lost = set(shards)
        self._epochs = {shard: epoch for shard, epoch in self._epochs.items() if shard not in lost}

    def begin_move(self, shards: Collection[int]) -> None:
        """Block calls that would change runs of shards, until `end_move`."""
        self._moving.update(shards)

    async def unused(self, shards: Collection[int]) -> None:
        """Wait until no call is changing runs of the shards."""
        await self._changed.until(lambda: not any(self._users[shard] for shard in shards))

    def end_move(self, shards: Collection[int]) -> None:
        """Let waiting calls continue; they claim the shards again, or fail."""
        self._moving.subtract(shards)
        self._changed.notify()

    def _may_change(self, shards: Collection[int]) -> bool:
        return not any(self._moving[shard] for shard in shards)

    async def release(self, shards: Collection[int]) -> None:
        """Release shards; they are not held any more, even if writing to the database fails.

        Raises:
            AdvisorError: as for `renew`.
        """
        held: Mapping[int, int] = {shard: self._epochs[shard] for shard in shards}
        self.lose(shards)
        await self._in_database(lambda: self._leases.release(held))

    async def leave(self) -> None:
        """Delete the lease.

        Raises:
            AdvisorError: as for `renew`.
        """
        await self._in_database(self._leases.leave)

    async def _in_database(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
