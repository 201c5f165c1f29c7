"""The embedded store: SQLite through SQLAlchemy Core.

One connection, used from one thread: SQLite before 3.51.3 can corrupt a write-ahead log when
several connections reset it at once. `synchronous=NORMAL` leaves no fsync on the hot path: a killed
process loses nothing that was committed, a power cut at most the last commits, never the file.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
import structlog
from sqlalchemy.pool import StaticPool

from mlrs_core.config import RunConfig
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.ledger import RunStatus
from mlrs_server.runs import RunSnapshot
from mlrs_server.store import codec
from mlrs_server.store.protocol import NewRun, Observations, RunUpdate, StoredRun

log = structlog.get_logger()

SCHEMA_VERSION = 2
"""What the tables hold; kept in SQLite's `user_version`. Since 2, configs may have a schedule."""

metadata = sa.MetaData()

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("key", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.String, nullable=False, unique=True),
    sa.Column("config", sa.LargeBinary, nullable=False),
    sa.Column("model_name", sa.String, nullable=False),
    sa.Column("model_digest", sa.String, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("snapshot", sa.LargeBinary, nullable=False),
    sa.Column("create_time", sa.Float, nullable=False),
    sa.Column("update_time", sa.Float, nullable=False),
    sqlite_autoincrement=True,  # the key of a deleted run never comes back
)

observations = sa.Table(
    "observations",
    metadata,
    sa.Column("run_key", sa.Integer, primary_key=True),
    sa.Column("first_step", sa.Integer, primary_key=True),
    sa.Column("steps", sa.Integer, nullable=False),
    sa.Column("record", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)


def open_sqlite(path: Path) -> SqliteStore:
    """Open the store in a file, made if missing.

    Raises:
        AdvisorError: the file cannot be opened, is no store, or is of a newer version.
    """
    engine = sa.create_engine(
        f"sqlite:///{path}", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    sa.event.listen(engine, "connect", _configure)
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        with _translated(f"cannot open the store {path}"), engine.begin() as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            if version > SCHEMA_VERSION:
                raise AdvisorError(
                    Reason.STORE,
                    f"the store {path} is of version {version}; upgrade mlrs, "
                    f"which reads up to {SCHEMA_VERSION}",
                )
            metadata.create_all(connection)
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        engine.dispose()
        raise
    return SqliteStore(engine)


def _configure(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's own BEGIN, above, is the only one
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "busy_timeout = 5000"):
        connection.execute(f"PRAGMA {pragma}")


class SqliteStore:
    """`Store` in one SQLite file."""

    def __init__(self, engine: sa.Engine) -> None:
        """Wrap an open engine; `open_sqlite` makes it."""
        self._engine = engine

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with _translated("the store cannot be read or written"), self._engine.begin() as connection:
            yield connection

    def create(self, run: NewRun) -> StoredRun:
        """Store a new run."""
        now = time.time()
        values = {
            "run_id": run.run_id,
            "config": codec.pack_config(run.config),
            "model_name": run.model_name,
            "model_digest": run.model_digest,
            "status": int(run.snapshot.status),
            "snapshot": codec.pack_snapshot(run.snapshot),
            "create_time": now,
            "update_time": now,
        }
        with self._transaction() as connection:
            try:
                result = connection.execute(runs.insert().values(values))
            except sa.exc.IntegrityError as error:
                raise AdvisorError(
                    Reason.RUN_EXISTS, f"run_id: {run.run_id!r} is taken", field="run_id"
                ) from error
            (key,) = result.inserted_primary_key or (0,)
        return StoredRun(**vars(run), key=key, create_time=now, update_time=now)

    def get(self, run_id: str) -> StoredRun | None:
        """Return a run, or `None`."""
        with self._transaction() as connection:
            row = connection.execute(sa.select(runs).where(runs.c.run_id == run_id)).one_or_none()
        return None if row is None else _stored(row)

    def list(self, *, prefix: str, status: RunStatus | None, after: str, limit: int) -> list[StoredRun]:
        """Return runs ordered by id, from the first beyond `after`, without those that cannot be read."""
        query = sa.select(runs).where(runs.c.run_id > after).order_by(runs.c.run_id)
        if prefix:
            query = query.where(runs.c.run_id >= prefix, runs.c.run_id < prefix + chr(0x10FFFF))
        if status is not None:
            query = query.where(runs.c.status == int(status))
        with self._transaction() as connection:
            return list(islice(_readable(connection.execute(query)), limit))

    def append(self, updates: Sequence[RunUpdate]) -> None:
        """Store new observations of some runs, all or none."""
        now = time.time()
        records = [
            {
                "run_key": update.key,
                "first_step": update.first_step,
                "steps": len(update.observations),
                "record": codec.pack_observations(update.observations),
            }
            for update in updates
        ]
        moved = [{**_moved(update.key, update.snapshot), "update_time": now} for update in updates]
        with self._transaction() as connection:
            connection.execute(observations.insert(), records)
            connection.execute(_MOVE.values(update_time=sa.bindparam("update_time")), moved)

    def read(self, key: int, first_step: int, limit: int) -> Observations:
        """Return a run's record from a step on, at most `limit` steps."""
        chunk = observations.c
        query = (
            sa.select(runs.c.run_id, chunk.first_step, chunk.record)
            .join_from(observations, runs, runs.c.key == chunk.run_key)
            .where(chunk.run_key == key)
            .where(chunk.first_step + chunk.steps > first_step, chunk.first_step < first_step + limit)
            .order_by(chunk.first_step)
        )
        with self._transaction() as connection:
            rows = connection.execute(query).all()
        if not rows:
            return Observations(np.empty(0), np.empty(0), np.empty(0, np.uint8))
        step = min(first_step, rows[0].first_step)
        parts = []
        for row in rows:
            if row.first_step != step:
                raise AdvisorError(
                    Reason.STORE,
                    f"the store's record of run {row.run_id!r} breaks off at step {step}; "
                    "restore it from a backup",
                )
            parts.append(codec.unpack_observations(row.record, row.run_id))
            step += len(parts[-1])
        return _slice(_joined(parts), first_step - rows[0].first_step, limit)

    def complete(self, key: int, config: RunConfig) -> None:
        """Replace the config of a run that has no observation yet."""
        with self._transaction() as connection:
            connection.execute(
                runs.update().where(runs.c.key == key).values(config=codec.pack_config(config))
            )

    def set_status(self, key: int, status: RunStatus) -> None:
        """Set the status of a run."""
        with self._transaction() as connection:
            connection.execute(runs.update().where(runs.c.key == key).values(status=int(status)))

    def rewind(self, key: int, snapshot: RunSnapshot) -> None:
        """Drop a run's record from `snapshot.next_step` on, and put it back to that snapshot."""
        step = snapshot.next_step
        chunk = observations.c
        straddles = sa.and_(
            chunk.run_key == key, chunk.first_step < step, chunk.first_step + chunk.steps > step
        )
        with self._transaction() as connection:
            connection.execute(observations.delete().where(chunk.run_key == key, chunk.first_step >= step))
            cut = connection.execute(
                sa.select(runs.c.run_id, chunk.first_step, chunk.record)
                .join_from(observations, runs, runs.c.key == chunk.run_key)
                .where(straddles)
            ).one_or_none()
            if cut is not None:
                kept = _slice(codec.unpack_observations(cut.record, cut.run_id), 0, step - cut.first_step)
                connection.execute(
                    observations.update()
                    .where(straddles)
                    .values(steps=len(kept), record=codec.pack_observations(kept))
                )
            connection.execute(_MOVE, [_moved(key, snapshot)])

    def delete(self, key: int) -> None:
        """Delete a run and its record."""
        with self._transaction() as connection:
            connection.execute(observations.delete().where(observations.c.run_key == key))
            connection.execute(runs.delete().where(runs.c.key == key))

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()


_MOVE = (
    runs.update()
    .where(runs.c.key == sa.bindparam("at_key"))
    .values(status=sa.bindparam("status"), snapshot=sa.bindparam("snapshot"))
)
"""Moves a run to a snapshot."""


def _moved(key: int, snapshot: RunSnapshot) -> dict[str, Any]:
    return {"at_key": key, "status": int(snapshot.status), "snapshot": codec.pack_snapshot(snapshot)}


def _stored(row: Any) -> StoredRun:
    # The column holds the status too, so that runs can be listed by it: a finished run's snapshot
    # is that of its last step.
    snapshot = codec.unpack_snapshot(row.snapshot, row.run_id)
    return StoredRun(
        key=row.key,
        run_id=row.run_id,
        config=codec.unpack_config(row.config, row.run_id),
        model_name=row.model_name,
        model_digest=row.model_digest,
        snapshot=RunSnapshot(**{**vars(snapshot), "status": RunStatus(row.status)}),
        create_time=row.create_time,
        update_time=row.update_time,
    )


def _readable(rows: Iterable[Any]) -> Iterator[StoredRun]:
    """Yield the runs of rows, without those that are damaged or of a newer version."""
    for row in rows:
        try:
            yield _stored(row)
        except AdvisorError as error:
            log.warning("run_unreadable", run_id=row.run_id, problem=str(error))


def _joined(parts: Sequence[Observations]) -> Observations:
    return Observations(
        np.concatenate([part.losses for part in parts]),
        np.concatenate([part.lrs for part in parts]),
        np.concatenate([part.reasons for part in parts]),
    )


def _slice(whole: Observations, start: int, count: int) -> Observations:
    part = slice(start, start + count)
    return Observations(whole.losses[part], whole.lrs[part], whole.reasons[part])


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Turn the database's exceptions into the daemon's."""
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        raise AdvisorError(Reason.STORE, f"{what}: {getattr(error, 'orig', None) or error}") from error
