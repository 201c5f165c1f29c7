"""The engine past one machine: PostgreSQL through psycopg 3."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.storage.engines.dialect import Row
from mlrs_server.storage.engines.faults import postgres_problem

ROWS_AT_ONCE = 4096
"""Rows of a statement, so that each of a long transaction ends well before its time is up."""
LONG_PATIENCE_S = 3600.0
"""How long the server may take for a statement while tables change."""
_SCHEMA_LOCK = 0x6D6C7273
"""The advisory lock under which tables change."""

_COLUMNS = {
    "key": "bigint",
    "run_id": "text",
    "config": "bytea",
    "model_name": "text",
    "model_digest": "text",
    "status": "integer",
    "snapshot": "bytea",
    "create_time": "double precision",
    "update_time": "double precision",
    "shard": "integer",
    "loose_chunks": "integer",
    "world_size": "integer",
    "task": "text",
    "feeder": "text",
    "note": "bytea",
}
# A statement of arrays costs one round trip and one plan, however many rows: a tenth of executemany's.
_INSERT = f"""INSERT INTO runs ({", ".join(_COLUMNS)})
SELECT * FROM unnest({", ".join(f"%b::{_COLUMNS[name]}[]" for name in _COLUMNS)})
ON CONFLICT (run_id) DO NOTHING"""  # noqa: S608  # names of columns
_APPEND = """INSERT INTO observations (run_key, first_step, steps, record)
SELECT * FROM unnest(%b::bigint[], %b::bigint[], %b::integer[], %b::bytea[])
ON CONFLICT (run_key, first_step) DO UPDATE SET steps = EXCLUDED.steps, record = EXCLUDED.record
WHERE EXCLUDED.steps >= observations.steps"""
_MOVE = """UPDATE runs
SET status = moved.status, snapshot = moved.snapshot, update_time = moved.time,
    loose_chunks = loose_chunks + 1
FROM unnest(%b::integer[], %b::bytea[], %b::double precision[], %b::bigint[])
AS moved (status, snapshot, time, key) WHERE runs.key = moved.key"""


class PostgresDialect:
    """`Dialect` of a PostgreSQL database."""

    def __init__(self, url: sa.URL) -> None:
        """`url` is of psycopg."""
        self._url = url
        self.name = url.set(drivername="postgresql").render_as_string(hide_password=True)

    def engine(self) -> sa.Engine:
        """Return an engine of a few connections: the store's thread has one, others may renew leases."""
        try:
            from mlrs_server.storage.engines import bounded
        except ImportError as error:
            raise AdvisorError(
                Reason.STORE, "PostgreSQL needs psycopg: pip install 'mlrs[server,postgres]'"
            ) from error
        engine = sa.create_engine(
            self._url,
            pool_pre_ping=True,  # a server that was restarted is met with a fresh connection
            pool_size=2,
            max_overflow=2,
            pool_timeout=bounded.PATIENCE_S,
            hide_parameters=True,
            use_native_hstore=False,  # which would ask the server for it, unbounded
        )

        def connect(_dialect: Any, _record: Any, arguments: Any, parameters: Any) -> Any:
            return bounded.BoundedConnection.connect(*arguments, **{**bounded.PARAMETERS, **parameters})

        sa.event.listen(engine, "do_connect", connect)
        sa.event.listen(engine, "begin", lambda connection: _give(connection, bounded.PATIENCE_S))
        return engine

    def lock_schema(self, connection: sa.Connection) -> None:
        """Take the lock under which tables change, and all the time that they need."""
        _give(connection, LONG_PATIENCE_S)
        for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            connection.exec_driver_sql(f"SET LOCAL {limit} = 0")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")

    def check_foreign(self, tables: set[str]) -> None:
        """Refuse a schema with tables of our names that are not ours."""
        if taken := sorted({"runs", "observations"} & tables):
            raise AdvisorError(
                Reason.STORE,
                f"{self.name} has a table {taken[0]!r} of something else; choose another database or schema",
            )

    def keep_copy(self, engine: sa.Engine, revision: str) -> None:
        """Do nothing: backups of a server are the operator's."""

    def next_keys(self, connection: sa.Connection, count: int) -> Sequence[int]:
        """Return the next numbers of the sequence."""
        found = connection.exec_driver_sql(
            "SELECT nextval('runs_key_seq') FROM generate_series(1, %s)", (count,)
        )
        return sorted(found.scalars())

    def insert(self, connection: sa.Connection, rows: Sequence[Row]) -> int:
        """Insert runs, without those whose ids are taken; return how many."""
        return sum(
            connection.exec_driver_sql(_INSERT, columns).rowcount for columns in _columns_of_parts(rows)
        )

    def append(self, connection: sa.Connection, chunks: Sequence[Row], moves: Sequence[Row]) -> None:
        """Insert chunks and move runs."""
        for columns in _columns_of_parts(chunks):
            connection.exec_driver_sql(_APPEND, columns)
        for columns in _columns_of_parts(moves):
            connection.exec_driver_sql(_MOVE, columns)

    def freeze(self, connection: sa.Connection) -> None:
        """Read all from one snapshot."""
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")

    def give_keys_after(self, connection: sa.Connection, last: int) -> None:
        """Move the sequence on, never back."""
        connection.exec_driver_sql(
            "SELECT setval('runs_key_seq', greatest(%s, (SELECT last_value FROM runs_key_seq)))", (last,)
        )

    def vacuum(self, engine: sa.Engine) -> None:
        """Let the server use the space again."""
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            _give(connection, LONG_PATIENCE_S)
            connection.exec_driver_sql("SET statement_timeout = 0")
            connection.exec_driver_sql("VACUUM (ANALYZE) runs, observations")
            connection.exec_driver_sql("RESET statement_timeout")

    def inspect(self, connection: sa.Connection) -> str | None:  # noqa: ARG002  # a protocol's
        """Return nothing: a server looks after its pages itself (`pg_amcheck`, data checksums)."""
        return None

    def explain(self, error: BaseException) -> str:
        """Return what is wrong and what to do, in a line."""
        return postgres_problem(error)

    def is_spoilt(self, error: BaseException) -> bool:  # noqa: ARG002  # a protocol's
        """Return whether a connection that failed so is no good any more; SQLAlchemy sees to it."""
        return False


def _give(connection: sa.Connection, patience_s: float) -> None:
    """Give the server so long for each statement of a connection."""
    driver: Any = connection.connection.driver_connection
    driver.patience_s = patience_s


def _columns_of_parts(rows: Sequence[Row]) -> Iterator[tuple[list[object], ...]]:
    """Yield the columns of rows, so many rows at a time."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield tuple(map(list, zip(*rows[start : start + ROWS_AT_ONCE], strict=True)))
