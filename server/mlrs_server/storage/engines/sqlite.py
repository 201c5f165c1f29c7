"""The embedded engine: SQLite.

One connection, used from one thread: SQLite before 3.51.3 can corrupt a write-ahead log when
several connections reset it at once.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.storage.engines.dialect import READS, Row
from mlrs_server.storage.engines.faults import sqlite_is_spoilt, sqlite_problem
from mlrs_server.storage.tables import runs

BUSY_S = 5.0
"""How long a transaction waits for another process."""

# Written out: SQLAlchemy takes longer to bind a thousand rows than SQLite to store them.
_INSERT = f"""INSERT INTO runs ({", ".join(runs.c.keys())})
VALUES ({", ".join("?" * len(runs.c))}) ON CONFLICT (run_id) DO NOTHING"""  # noqa: S608  # names of columns
_APPEND = (
    "INSERT INTO observations (run_key, first_step, steps, record) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (run_key, first_step) DO UPDATE SET steps = excluded.steps, record = excluded.record "
    "WHERE excluded.steps >= observations.steps"
)
_MOVE = (
    "UPDATE runs SET status = ?, snapshot = ?, update_time = ?, loose_chunks = loose_chunks + 1 WHERE key = ?"
)


class SqliteDialect:
    """`Dialect` of a SQLite file."""

    def __init__(self, path: Path, *, reads_only: bool = False) -> None:
        """`path` is made if missing, but only now: a file that is moved away later is not made again.

        Another process's file may be read only: one that neither writes nor checkpoints cannot corrupt it.
        """
        self.path = path
        self.name = str(path)
        self._making = path.with_name(f"{path.name}.making")  # is there until the file has its first page
        is_new = not path.exists() or (self._making.exists() and not path.stat().st_size)
        self._mode = "ro" if reads_only else "rwc" if is_new else "rw"

    def engine(self) -> sa.Engine:
        """Return an engine of one connection.

        Raises:
            AdvisorError: the file is empty.
        """
        if self._mode != "rwc" and self.path.is_file() and not self.path.stat().st_size:
            raise AdvisorError(
                Reason.STORE,
                f"cannot open the store {self.name}: the file is empty, so what it held is lost; bring a "
                "backup back with `mlrs store restore FILE --replace`, or delete the file to begin anew",
            )
        engine = sa.create_engine(
            "sqlite://", creator=self._connect, poolclass=StaticPool, hide_parameters=True
        )
        sa.event.listen(engine, "connect", _configure_reading if self._mode == "ro" else _configure)
        sa.event.listen(engine, "begin", _begin)
        return engine

    def _connect(self) -> sqlite3.Connection:
        is_new = self._mode == "rwc"
        if is_new:
            with suppress(OSError):  # SQLite will say what stands against making files here
                self._making.touch(mode=0o600)
        _keep_private(self.path, make=is_new)
        file = f"{self.path.absolute().as_uri()}?mode={self._mode}"
        connection = sqlite3.connect(file, uri=True, check_same_thread=False, timeout=BUSY_S)
        if is_new:
            connection.execute("PRAGMA journal_mode = WAL")  # which writes the first page
            with suppress(OSError):
                self._making.unlink(missing_ok=True)
            self._mode = "rw"
        return connection

    def lock_schema(self, connection: sa.Connection) -> None:
        """Do nothing: a transaction that writes is the only one."""

    def check_foreign(self, tables: set[str]) -> None:
        """Refuse a file that has any tables."""
        if tables:
            raise AdvisorError(
                Reason.STORE,
                f"{self.name} is a database of something else; choose another data folder, or move it away",
            )

    def keep_copy(self, engine: sa.Engine, revision: str) -> None:
        """Copy the file to one beside it, whole or not at all."""
        copy = self.path.with_name(f"{self.path.name}.before-{revision}")
        unfinished = copy.with_name(f"{copy.name}.new")
        unfinished.unlink(missing_ok=True)
        _keep_private(unfinished, make=True)
        with closing(engine.raw_connection()) as connection, closing(sqlite3.connect(unfinished)) as target:
            source: Any = connection.driver_connection
            source.backup(target)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(copy)
        sync_folder(self.path.parent)

    def vacuum(self, engine: sa.Engine) -> None:
        """Write the file anew."""
        with closing(engine.raw_connection()) as connection:
            driver: Any = connection.driver_connection
            driver.execute("VACUUM")

    def next_keys(self, connection: sa.Connection, count: int) -> Sequence[int]:
        """Return the keys after the last that was ever given."""
        last = connection.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = 'runs'").scalar()
        first = (last or 0) + 1
        return range(first, first + count)

    def insert(self, connection: sa.Connection, rows: Sequence[Row]) -> int:
        """Insert runs, without those whose ids are taken; return how many."""
        return connection.exec_driver_sql(_INSERT, list(rows)).rowcount

    def append(self, connection: sa.Connection, chunks: Sequence[Row], moves: Sequence[Row]) -> None:
        """Insert chunks and move runs."""
        for statement, rows in ((_APPEND, chunks), (_MOVE, moves)):
            if rows:
                connection.exec_driver_sql(statement, list(rows))

    def freeze(self, connection: sa.Connection) -> None:
        """Do nothing: each transaction is like that."""

    def give_keys_after(self, connection: sa.Connection, last: int) -> None:
        """Raise the count that SQLite keeps, which is that of runs alone."""
        if self.next_keys(connection, 1)[0] <= last:
            connection.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = 'runs'")
            connection.exec_driver_sql("INSERT INTO sqlite_sequence (name, seq) VALUES ('runs', ?)", (last,))

    def inspect(self, connection: sa.Connection) -> str | None:
        """Return the first thing that SQLite finds wrong with its pages."""
        found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
        return None if found == "ok" else found.replace("\n", " ")

    def explain(self, error: BaseException) -> str:
        """Return what is wrong and what to do, in a line."""
        return sqlite_problem(error, self.path)

    def is_spoilt(self, error: BaseException) -> bool:
        """Return whether the file should be opened again."""
        return sqlite_is_spoilt(error)


def _keep_private(path: Path, *, make: bool) -> None:
    """Have a database, made if it is to be, be read and written by its owner alone, with what is beside it.

    What stands against making it SQLite will say.
    """
    if make:
        with suppress(OSError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    for suffix in ("", "-wal", "-shm"):  # SQLite makes them of the same mode
        with suppress(OSError):  # it is not there, or another's, or on a disk that is read-only
            path.with_name(f"{path.name}{suffix}").chmod(0o600)


def sync_folder(folder: Path) -> None:
    """Have the names of files in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _configure_reading(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's own BEGIN, below, is the only one


def _configure(connection: Any, record: object) -> None:
    _configure_reading(connection, record)
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get(READS, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
