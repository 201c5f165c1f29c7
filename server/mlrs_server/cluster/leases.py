"""Leases of replicas and owners of shards, in the database; on any thread but the event loop's.

    replicas   id, address, draining, lease_until   one row per replica, with a valid or an expired lease
    shards     shard, owner, epoch                  256 rows; the owner is a replica's id, or ""

All times are those of the database's clock, so the replicas' clocks do not matter.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mlrs_server.domain.shards import SHARDS
from mlrs_server.errors import AdvisorError, FencedError, Reason
from mlrs_server.storage import SqlStore
from mlrs_server.storage.tables import replicas, shards

FORGOTTEN_AFTER_S = 86_400.0
"""How long after its lease has expired the row of a replica is deleted."""


@dataclass(frozen=True)
class ReplicaLease:
    """A replica with a valid lease."""

    id: str
    """A new random name at each start."""
    address: str
    """The address that clients use."""
    draining: bool
    """Whether it is shutting down and releases its shards."""
    lease_until: float
    """When the lease ends unless it is renewed, on the database's clock, in seconds since the epoch."""


@dataclass(frozen=True)
class Membership:
    """The live replicas and the owners of all shards, at one moment."""

    replicas: Mapping[str, ReplicaLease]
    """The replicas with valid leases, by id."""
    owners: Mapping[int, tuple[str, int]]
    """The owner's id, or "", and the epoch of each shard."""

    def free(self) -> set[int]:
        """Return the shards without an owner that has a valid lease."""
        return {shard for shard, (owner, _) in self.owners.items() if owner not in self.replicas}

    def held_by(self, replica_id: str) -> dict[int, int]:
        """Return the shards of a replica, with their epochs."""
        return {shard: epoch for shard, (owner, epoch) in self.owners.items() if owner == replica_id}


class Leases:
    """Reads and writes the tables for one replica. Every method is one transaction.

    Raises:
        AdvisorError: with `Reason.STORE`, if the database cannot be read or written.
    """

    def __init__(self, store: SqlStore, replica_id: str, *, lease_s: float) -> None:
        self.address = ""
        """The address that clients use for this replica; set before the first `renew`."""
        self.replica_id = replica_id
        self.lease_s = lease_s
        self._store = store
        self._now = _clock(store.engine_name)

    def renew(self, *, draining: bool = False) -> Membership:
        """Renew this replica's lease; return the membership."""
        until = self._now + self.lease_s
        values = {"address": self.address, "draining": draining, "lease_until": until}
        mine = replicas.c.id == self.replica_id
        with self._store.transaction() as connection:
            if not connection.execute(replicas.update().where(mine).values(values)).rowcount:
                connection.execute(replicas.insert().values(id=self.replica_id, **values))
            connection.execute(
                replicas.delete().where(replicas.c.lease_until < self._now - FORGOTTEN_AFTER_S)
            )
            return self._membership(connection)

    def claim(self, wanted: Collection[int]) -> dict[int, int]:
        """Claim shards; return those that this replica now owns, with their epochs.

        Call `renew` first, or others see this replica's lease as expired.
        """
        alive = sa.exists().where(replicas.c.id == shards.c.owner, replicas.c.lease_until > self._now)
        with self._store.transaction() as connection:
            connection.execute(
                shards.update()
                .where(shards.c.shard.in_(sorted(wanted)), ~alive)
                .values(owner=self.replica_id, epoch=shards.c.epoch + 1)
            )
            rows = connection.execute(
                sa.select(shards.c.shard, shards.c.epoch).where(
                    shards.c.shard.in_(sorted(wanted)), shards.c.owner == self.replica_id
                )
            )
            return {row.shard: row.epoch for row in rows}

    def release(self, held: Mapping[int, int]) -> None:
        """Release shards, so that any replica can claim them; `held` has their epochs."""
        with self._store.transaction() as connection:
            connection.execute(
                shards.update()
                .where(shards.c.shard.in_(sorted(held)), shards.c.owner == self.replica_id)
                .values(owner="")
            )

    def leave(self) -> None:
        """Delete this replica's lease, and with it its ownership of all shards."""
        with self._store.transaction() as connection:
            connection.execute(replicas.delete().where(replicas.c.id == self.replica_id))

    def _membership(self, connection: sa.Connection) -> Membership:
        alive = connection.execute(sa.select(replicas).where(replicas.c.lease_until > self._now))
        live = {row.id: ReplicaLease(row.id, row.address, row.draining, row.lease_until) for row in alive}
        rows = connection.execute(sa.select(shards)).all()
        if len(rows) < SHARDS:
            raise AdvisorError(Reason.STORE, "the table `shards` lacks rows; restore it from a backup")
        return Membership(live, {row.shard: (row.owner, row.epoch) for row in rows})


def check_epochs(
    connection: sa.Connection, held: Mapping[int, int], written: Collection[int], lease_s: float
) -> None:
    """Check, in a transaction that writes runs of shards, that this replica still owns all of them.

    The rows stay locked until the transaction ends, so that no replica claims a shard meanwhile. If the
    transaction is idle for the length of a lease, the database ends it, so that it does not block others.

    Raises:
        FencedError: another replica has claimed one.
    """
    wanted = sorted(written)
    if connection.dialect.name == "postgresql":
        idle_ms = max(1, round(1000 * lease_s))
        connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {idle_ms}")
    rows = connection.execute(
        sa.select(shards.c.shard, shards.c.epoch)
        .where(shards.c.shard.in_(wanted))
        .order_by(shards.c.shard)
        .with_for_update(read=True)
    )
    now = {row.shard: row.epoch for row in rows}
    if lost := [shard for shard in wanted if shard not in held or now.get(shard) != held[shard]]:
        raise FencedError(lost)


def _clock(dialect: str) -> Any:
    """Return the SQL expression of the database's clock, in seconds since the epoch."""
    if dialect == "sqlite":
        return sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", sa.Float)
    return sa.literal_column("extract(epoch from clock_timestamp())::float8", sa.Float)
