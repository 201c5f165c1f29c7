"""Backups: a store in one SQLite file, whatever engine it is of.

A backup is itself a store, of the newest revision. So a backup of either engine is restored into either, and
`sqlite3` reads it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import sqlalchemy as sa

from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.storage.engines.sqlite import BUSY_S, SqliteDialect, sync_folder
from mlrs_server.storage.factory import open_store
from mlrs_server.storage.sql import SqlStore, translated
from mlrs_server.storage.tables import (
    alias_changes,
    meta_updates,
    model_names,
    models,
    networks,
    observations,
    past_runs,
    run_events,
    run_tags,
    runs,
    searches,
)

ROWS = 1000
"""The number of rows copied at a time."""
COPIED = (
    runs,
    run_tags,
    observations,
    meta_updates,
    networks,
    searches,
    past_runs,
    run_events,
    model_names,
    alias_changes,
)
"""The tables copied as a whole. Ownership by replicas is left out; models are copied one by one."""

Progress = Callable[[int], None]
"""Called with the number of rows that were copied since the last call."""


def count_rows(store: SqlStore) -> int:
    """Return how many rows a backup of a store has."""
    with store.reading() as connection:
        return sum(
            int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
            for table in COPIED
        )


def back_up(store: SqlStore, file: Path, progress: Progress) -> None:
    """Write a store as it is now to a file, atomically.

    Raises:
        AdvisorError: the store cannot be read, or the file cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".backup-") as folder:
            unfinished = Path(folder) / "backup"
            with closing(open_store(unfinished)) as target:
                _copy(store, target, progress, replace=False)
            with closing(sqlite3.connect(unfinished)) as target_file:
                target_file.execute("PRAGMA journal_mode = DELETE")  # which makes it one file
            with unfinished.open("rb") as written:
                os.fsync(written.fileno())
            unfinished.replace(file)
        sync_folder(file.parent)
    except OSError as error:
        raise AdvisorError(
            Reason.STORE, f"the backup {file} cannot be written: {error.strerror or error}"
        ) from error


def restore(file: Path, store: SqlStore, progress: Progress, *, replace: bool) -> None:
    """Restore a backup into a store, in one transaction.

    Models that only the store has stay there, by their digest. Names and aliases become the backup's.

    Raises:
        AdvisorError: the file is no backup or damaged, the store has runs and `replace` is not set, or it
            cannot be written; the store is then unchanged.
    """
    with opened_backup(file) as source:
        _copy(source, store, progress, replace=replace)


def restore_file(file: Path, path: Path, progress: Progress, *, replace: bool) -> None:
    """Restore a backup to the file of a SQLite store. A store that is there is renamed to `.replaced`.

    Raises:
        AdvisorError: as `restore`.
    """
    if path.exists() and not replace:
        raise AdvisorError(
            Reason.STORE, f"there is a store {path}; pass --replace to rename it to {path.name}.replaced"
        )
    fresh, replaced = path.with_name(f"{path.name}.restoring"), path.with_name(f"{path.name}.replaced")
    for leftover in (*_files_of(fresh), *_files_of(replaced)):
        leftover.unlink(missing_ok=True)
    with closing(open_store(fresh)) as target:
        restore(file, target, progress, replace=False)
    if path.exists():
        replaced.hardlink_to(path)  # so that there is a store at every moment
        for old, new in zip(_files_of(path)[1:], _files_of(replaced)[1:], strict=True):
            if old.exists():
                old.replace(new)
    fresh.replace(path)
    sync_folder(path.parent)


def _files_of(path: Path) -> list[Path]:
    """Return the files of a SQLite store."""
    return [path.with_name(f"{path.name}{suffix}") for suffix in ("", "-wal", "-shm")]


@contextmanager
def copied_online(path: Path, *, beside: Path | None) -> Iterator[SqlStore]:
    """Copy a SQLite store that a daemon has open, as it is at one moment, and yield the copy, opened.

    The daemon is not disturbed. This connection is read-only, so it neither writes the log nor checkpoints
    it, and SQLite before 3.51.3 cannot corrupt the file either: that takes two processes that do.

    Args:
        path: the daemon's file.
        beside: the folder of the copy, which is removed in the end; `None` is the system's temporary folder.

    Raises:
        AdvisorError: it cannot be read, or the copy cannot be written.
    """
    with ExitStack() as stack:
        with translated(SqliteDialect(path), f"cannot copy the store {path}"):
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=beside, prefix=".copy-"))
            copy = Path(folder) / path.name
            uri = f"{path.absolute().as_uri()}?mode=ro"
            with (
                closing(sqlite3.connect(uri, uri=True, timeout=BUSY_S)) as source,
                closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
        yield stack.enter_context(closing(open_store(copy)))


@contextmanager
def opened_backup(file: Path) -> Iterator[SqlStore]:
    """Open a backup, and yield it.

    A copy is opened, since opening may upgrade the tables, and the backup may be read-only.

    Raises:
        AdvisorError: there is no backup, or it is damaged.
    """
    if not file.is_file():
        raise AdvisorError(Reason.STORE, f"there is no backup {file}")
    with tempfile.TemporaryDirectory(prefix="mlrs-restore-") as folder:
        copy = Path(folder) / file.name
        try:
            shutil.copyfile(file, copy)
        except OSError as error:
            raise AdvisorError(
                Reason.STORE, f"the backup {file} cannot be copied to {folder}: {error.strerror or error}"
            ) from error
        _check_backup(copy, file)
        with closing(open_store(copy)) as store:
            yield store


def _check_backup(copy: Path, file: Path) -> None:
    """Check that the copy of a file is whole, and a store."""
    try:
        with closing(sqlite3.connect(copy)) as opened:
            problem = str(opened.execute("PRAGMA quick_check(1)").fetchone()[0])
            tables = {name for (name,) in opened.execute("SELECT name FROM sqlite_master")}
    except sqlite3.Error as error:
        problem = f"it is damaged, or no database at all ({error})"
    if problem != "ok":
        says = problem.replace("\n", " ")
        raise AdvisorError(Reason.STORE, f"the backup {file} cannot be used: {says}; take another one")
    if not {runs.name, observations.name} <= tables:
        raise AdvisorError(Reason.STORE, f"the backup {file} has no runs: it is none; take another file")


def _copy(source: SqlStore, target: SqlStore, progress: Progress, *, replace: bool) -> None:
    """Copy all rows from one store as it is now to another, in one transaction."""
    with source.frozen() as reading, target.transaction() as writing:
        if not replace and writing.execute(sa.select(runs.c.key).limit(1)).first() is not None:
            raise AdvisorError(
                Reason.STORE,
                f"the store {target.name} has runs; pass --replace to replace them by the backup's",
            )
        for table in reversed(COPIED):
            writing.execute(table.delete())
        for table in COPIED:
            for rows in _pages(reading, table):
                writing.execute(table.insert(), [dict(row) for row in rows])
                progress(len(rows))
        _copy_models(reading, writing)
        columns = (runs.c.key, past_runs.c.run_key)  # a run that is remembered may be gone
        given = [writing.execute(sa.select(sa.func.max(column))).scalar() for column in columns]
        if last := max(key or 0 for key in given):
            target.give_keys_after(writing, last)


def _copy_models(reading: sa.Connection, writing: sa.Connection) -> None:
    """Copy the models that are not there yet, one at a time, as they may be large."""
    there = set(writing.execute(sa.select(models.c.digest)).scalars())
    for digest in reading.execute(sa.select(models.c.digest)).scalars().all():
        if digest not in there:
            one = sa.select(models).where(models.c.digest == digest)
            writing.execute(models.insert(), dict(reading.execute(one).mappings().one()))


def _pages(connection: sa.Connection, table: sa.Table) -> Iterator[list[sa.RowMapping]]:
    """Yield the rows of a table in the order of its primary key, some at a time."""
    keys = list(table.primary_key.columns)
    query = sa.select(table).order_by(*keys).limit(ROWS)
    rows = list(connection.execute(query).mappings())
    while rows:
        yield rows
        last = tuple(rows[-1][key] for key in keys)
        rows = list(connection.execute(query.where(sa.tuple_(*keys) > last)).mappings())
