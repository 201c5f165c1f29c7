"""Meta updates of runs and their adapted networks, as rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
import structlog

from mlrs_server.domain.updates import MetaUpdate, WeightCheckpoints
from mlrs_server.errors import DamagedError
from mlrs_server.storage import codec
from mlrs_server.storage.protocol import RunUpdates, StoredNetwork
from mlrs_server.storage.tables import KEEP_NETWORK, KEEP_UPDATE, meta_updates, networks, runs

log = structlog.get_logger()

Rows = list[dict[str, object]]


def rows_of(updates: Sequence[RunUpdates]) -> tuple[Rows, Rows]:
    """Return the rows that `keep` stores, of some groups' updates: meta updates, and networks."""
    made: Rows = [
        {"run_key": one.key, "step": one.update.step, "record": codec.pack_update(one.update)}
        for update in updates
        for one in update.applied
    ]
    return made, [row for update in updates if update.networks for row in _network_rows(update.networks)]


def _network_rows(kept: WeightCheckpoints) -> Rows:
    snapshots = codec.pack_snapshots(kept.records, kept.states)
    return [
        {
            "run_key": int(record["key"]),
            "step": int(record["next_step"]),
            "updates": updates,
            "snapshot": snapshot,
            "data": codec.pack_network(network, kept.first),
        }
        for record, updates, snapshot, network in zip(
            kept.records, kept.updates, snapshots, kept.networks, strict=True
        )
    ]


def keep(connection: sa.Connection, made: Rows, kept: Rows) -> None:
    """Store meta updates and networks."""
    if made:
        connection.execute(KEEP_UPDATE, made)
    if kept:
        connection.execute(KEEP_NETWORK, kept)


def read_updates(connection: sa.Connection, key: int, first_step: int, limit: int) -> Sequence[MetaUpdate]:
    """Return a run's meta updates of so many steps from a step on, in their order."""
    step = meta_updates.c.step
    query = _OF_RUN.where(runs.c.key == key, step >= first_step, step < first_step + limit).order_by(step)
    return [_update_of(row) for row in connection.execute(query)]


def last_updates(connection: sa.Connection, keys: Sequence[int]) -> Iterator[tuple[int, MetaUpdate]]:
    """Yield the newest meta updates of as many runs as a statement can list, each with the run's key.

    A damaged one is left out: it must not keep others from being listed, nor a run from being finished.
    """
    for row in connection.execute(_NEWEST, {"keys": keys}):
        try:
            yield row.run_key, _update_of(row)
        except DamagedError as error:
            log.warning("run_unreadable", run_id=row.run_id, problem=str(error))


def network_of(connection: sa.Connection, key: int) -> StoredNetwork | None:
    """Return the network of a run that was stored last, if any."""
    query = (
        sa.select(runs.c.run_id, networks.c.updates, networks.c.snapshot, networks.c.data)
        .join_from(networks, runs, runs.c.key == networks.c.run_key)
        .where(runs.c.key == key)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return StoredNetwork(codec.unpack_snapshot(row.snapshot, row.run_id), row.updates, row.data)


def drop(connection: sa.Connection, key: int, step: int = 0) -> None:
    """Drop a run's meta updates from a step on, and its network if it is of later; from 0 on, everything."""
    connection.execute(
        meta_updates.delete().where(meta_updates.c.run_key == key, meta_updates.c.step >= step)
    )
    later = networks.c.step > step if step else sa.true()
    connection.execute(networks.delete().where(networks.c.run_key == key, later))


_OF_RUN = sa.select(runs.c.run_id, meta_updates.c.step, meta_updates.c.record).join_from(
    meta_updates, runs, runs.c.key == meta_updates.c.run_key
)
_OTHERS = meta_updates.alias()
_NEWEST = _OF_RUN.add_columns(meta_updates.c.run_key).where(
    runs.c.key.in_(sa.bindparam("keys", expanding=True)),
    # a run at a time: the primary key has the newest at its end
    meta_updates.c.step
    == sa.select(sa.func.max(_OTHERS.c.step)).where(_OTHERS.c.run_key == runs.c.key).scalar_subquery(),
)


def _update_of(row: Any) -> MetaUpdate:
    return codec.unpack_update(row.step, row.record, row.run_id)
