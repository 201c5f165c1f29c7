"""The embedded store: SQLite through SQLAlchemy Core.

One connection, used from one thread: SQLite before 3.51.3 can corrupt a write-ahead log when
several connections reset it at once. `synchronous=NORMAL` leaves no fsync on the hot path: a killed
process loses nothing that was committed, a power cut at most the last commits, never the file.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, repeat
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import sqlalchemy as sa
import structlog
from sqlalchemy.pool import StaticPool

from mlrs_core.config import RunConfig
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.ledger import RunStatus
from mlrs_server.names import full_name
from mlrs_server.runs import RunSnapshot
from mlrs_server.store import codec
from mlrs_server.store.packing import pack_all_observations, pack_all_snapshots
from mlrs_server.store.protocol import NewRun, Observations, RunUpdates, StoredRun
from mlrs_server.store.tables import (
    FIND,
    INSERT,
    MOVE,
    SCHEMA_VERSION,
    metadata,
    moved_to,
    observations,
    of_tenant,
    row_of,
    run_of,
    runs,
)

log = structlog.get_logger()

# Written out: SQLAlchemy takes longer to bind a thousand rows than SQLite to store them.
_APPEND = "INSERT INTO observations (run_key, first_step, steps, record) VALUES (?, ?, ?, ?)"
_MOVE_ALL = "UPDATE runs SET status = ?, snapshot = ?, update_time = ? WHERE key = ?"

AT_ONCE = 500
"""Values that a statement lists: SQLite takes 999 at most before its version 3.32."""

T = TypeVar("T")


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

    def create(self, new: Sequence[NewRun]) -> list[StoredRun]:
        """Store new runs, all or none, and return them in their order."""
        if not new:
            return []
        now = time.time()
        with self._transaction() as connection:
            # Keys are chosen here: an insert of many rows does not say which it gave.
            last = connection.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = 'runs'").scalar()
            first = (last or 0) + 1
            stored = [
                StoredRun(**vars(run), key=key, create_time=now, update_time=now)
                for key, run in enumerate(new, first)
            ]
            try:
                connection.exec_driver_sql(INSERT, [row_of(run) for run in stored])
            except sa.exc.IntegrityError as error:
                taken = _first_taken(connection, [run.run_id for run in new], first)
                raise AdvisorError(
                    Reason.RUN_EXISTS, f"run_id: {taken!r} is taken", field="run_id"
                ) from error
        return stored

    def get(self, run_ids: Sequence[str]) -> dict[str, StoredRun]:
        """Return runs by id, without those that are not there; any number."""
        with self._transaction() as connection:
            rows = [row for some in _parts(run_ids) for row in connection.execute(FIND, {"run_ids": some})]
        return {row.run_id: run_of(row) for row in rows}

    def list(
        self, *, prefix: str, status: RunStatus | None, after: str, limit: int, tenant: str = ""
    ) -> list[StoredRun]:
        """Return a tenant's runs ordered by id, from the first beyond `after`, without those not readable."""
        query = sa.select(runs).where(of_tenant(tenant, prefix)).order_by(runs.c.run_id)
        if after:
            query = query.where(runs.c.run_id > full_name(tenant, after))
        if status is not None:
            query = query.where(runs.c.status == int(status))
        with self._transaction() as connection:
            return list(islice(_readable(connection.execute(query)), limit))

    def count_unfinished(self, tenant: str) -> int:
        """Return how many runs of a tenant are not finished."""
        query = sa.select(sa.func.count()).where(of_tenant(tenant), runs.c.status != int(RunStatus.FINISHED))
        with self._transaction() as connection:
            return int(connection.execute(query).scalar_one())

    def append(self, updates: Sequence[RunUpdates]) -> None:
        """Store new observations of some runs, all or none."""
        now = time.time()
        records: list[tuple[Any, ...]] = []
        moved: list[tuple[Any, ...]] = []
        for update in updates:
            keys, firsts = update.records["key"].tolist(), update.answers["step"][update.bounds[:-1]].tolist()
            packed = pack_all_observations(update.answers, update.bounds)
            records += zip(keys, firsts, np.diff(update.bounds).tolist(), packed, strict=True)
            states = pack_all_snapshots(update.records, update.states)
            moved += zip(update.records["status"].tolist(), states, repeat(now), keys, strict=False)
        with self._transaction() as connection:
            connection.exec_driver_sql(_APPEND, records)
            connection.exec_driver_sql(_MOVE_ALL, moved)

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

    def set_status(self, keys: Sequence[int], status: RunStatus) -> None:
        """Set the status of some runs, all or none."""
        with self._transaction() as connection:
            for some in _parts(keys):
                connection.execute(runs.update().where(runs.c.key.in_(some)).values(status=int(status)))

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
            connection.execute(MOVE, [moved_to(key, snapshot)])

    def delete(self, key: int) -> None:
        """Delete a run and its record."""
        with self._transaction() as connection:
            connection.execute(observations.delete().where(observations.c.run_key == key))
            connection.execute(runs.delete().where(runs.c.key == key))

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()


def _first_taken(connection: sa.Connection, run_ids: Sequence[str], first_key: int) -> str | None:
    """Return the first id that has a run from before `first_key`, or is there twice."""
    taken: set[str] = set()
    for some in _parts(run_ids):
        taken.update(
            connection.scalars(
                sa.select(runs.c.run_id).where(runs.c.run_id.in_(some), runs.c.key < first_key)
            )
        )
    for run_id in run_ids:
        if run_id in taken:
            return run_id
        taken.add(run_id)
    return None


def _parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield values in parts that a statement can list."""
    for start in range(0, len(values), AT_ONCE):
        yield values[start : start + AT_ONCE]


def _readable(rows: Iterable[Any]) -> Iterator[StoredRun]:
    """Yield the runs of rows, without those that are damaged or of a newer version."""
    for row in rows:
        try:
            yield run_of(row)
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
