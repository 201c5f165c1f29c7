"""Meta updates of runs and checkpoints of their adapted weights, as rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
import structlog

from mlrs_server.domain.updates import MetaUpdate, WeightCheckpoints
from mlrs_server.errors import DamagedError
from mlrs_server.storage import codec
from mlrs_server.storage.protocol import RunUpdates, StoredNetwork
from mlrs_server.storage.tables import PUT_CHECKPOINT, PUT_UPDATE, meta_updates, networks, runs

log = structlog.get_logger()

Rows = list[dict[str, object]]


def rows_of(updates: Sequence[RunUpdates]) -> tuple[Rows, Rows]:
    """Return the rows that `store_rows` stores: those of meta updates, and those of checkpoints."""
    applied: Rows = [
        {"run_key": one.key, "step": one.update.step, "record": codec.pack_update(one.update)}
        for update in updates
        for one in update.applied
    ]
    return applied, [
        row for update in updates if update.checkpoints for row in _checkpoint_rows(update.checkpoints)
    ]


def _checkpoint_rows(checkpoints: WeightCheckpoints) -> Rows:
    snapshots = codec.pack_snapshots(checkpoints.records, checkpoints.states)
    return [
        {
            "run_key": int(record["key"]),
            "step": int(record["next_step"]),
            "updates": updates,
            "snapshot": snapshot,
            "data": codec.pack_network(network, checkpoints.first),
        }
        for record, updates, snapshot, network in zip(
            checkpoints.records, checkpoints.updates, snapshots, checkpoints.networks, strict=True
        )
    ]


def store_rows(connection: sa.Connection, applied: Rows, checkpoints: Rows) -> None:
    """Store the rows of meta updates and of checkpoints."""
    if applied:
        connection.execute(PUT_UPDATE, applied)
    if checkpoints:
        connection.execute(PUT_CHECKPOINT, checkpoints)


def read_updates(connection: sa.Connection, key: int, first_step: int, limit: int) -> Sequence[MetaUpdate]:
    """Return a run's meta updates of the steps [first_step, first_step + limit), in order."""
    step = meta_updates.c.step
    query = _OF_RUN.where(runs.c.key == key, step >= first_step, step < first_step + limit).order_by(step)
    return [_update_of(row) for row in connection.execute(query)]


def last_updates_of(
    connection: sa.Connection, key: int, first_step: int, end: int, width: int
) -> Sequence[MetaUpdate]:
    """Return the last meta update of each stretch of `width` steps of [first_step, end), in order.

    The others are not read.

    Raises:
        DamagedError: one of these is damaged.
    """
    given = {"key": key, "first_step": first_step, "width": width, "end": end}
    return (
        [_update_of(row) for row in connection.execute(_LAST_OF_STRETCHES, given)] if first_step < end else []
    )


def last_updates(connection: sa.Connection, keys: Sequence[int]) -> Iterator[tuple[int, MetaUpdate]]:
    """Yield the newest meta update of each run, with the run's key, for as many runs as a statement can list.

    A damaged update is skipped: it must not keep other runs from being listed, nor its own from finishing.
    """
    for row in connection.execute(_NEWEST, {"keys": keys}):
        try:
            yield row.run_key, _update_of(row)
        except DamagedError as error:
            log.warning("run_unreadable", run_id=row.run_id, problem=str(error))


def network_of(connection: sa.Connection, key: int) -> StoredNetwork | None:
    """Return the newest checkpoint of a run, if any."""
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
    """Drop a run's meta updates from a step on, and its checkpoint if that is newer; from 0 on, all."""
    connection.execute(
        meta_updates.delete().where(meta_updates.c.run_key == key, meta_updates.c.step >= step)
    )
    later = networks.c.step > step if step else sa.true()
    connection.execute(networks.delete().where(networks.c.run_key == key, later))


_OF_RUN = sa.select(runs.c.run_id, meta_updates.c.step, meta_updates.c.record).join_from(
    meta_updates, runs, runs.c.key == meta_updates.c.run_key
)
_LAST_OF_STRETCHES = sa.text("""WITH RECURSIVE stretches (begins) AS (
    SELECT CAST(:first_step AS BIGINT)
    UNION ALL SELECT begins + :width FROM stretches WHERE begins + :width < :end)
SELECT runs.run_id, meta_updates.step, meta_updates.record
FROM stretches JOIN runs ON runs.key = :key
JOIN meta_updates ON meta_updates.run_key = runs.key AND meta_updates.step = (
    SELECT max(step) FROM meta_updates
    WHERE run_key = :key AND step >= begins AND step < begins + :width AND step < :end)
ORDER BY meta_updates.step""")
"""The last update of each stretch: one look into the primary key for each, however many updates it has."""
_OTHERS = meta_updates.alias()
_NEWEST = _OF_RUN.add_columns(meta_updates.c.run_key).where(
    runs.c.key.in_(sa.bindparam("keys", expanding=True)),
    # One run at a time: the newest update is the last of the run in the primary key.
    meta_updates.c.step
    == sa.select(sa.func.max(_OTHERS.c.step)).where(_OTHERS.c.run_key == runs.c.key).scalar_subquery(),
)


def _update_of(row: Any) -> MetaUpdate:
    return codec.unpack_update(row.step, row.record, row.run_id)
