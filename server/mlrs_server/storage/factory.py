"""Opening a store by its file or its URL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.storage.engines.dialect import Dialect
from mlrs_server.storage.engines.postgresql import PostgresDialect
from mlrs_server.storage.engines.sqlite import SqliteDialect
from mlrs_server.storage.fence import Fence, NoFence
from mlrs_server.storage.schema import bring_up_to_date, check_up_to_date
from mlrs_server.storage.sql import SqlStore, translated


def open_store(where: Path | str, *, fence: Fence | None = None) -> SqlStore:
    """Open a store; its tables are made if missing, and brought up to date if old.

    Args:
        where: a SQLite file, made if missing, or a URL: `sqlite:///FILE` or
            `postgresql://USER:PASSWORD@HOST/DATABASE`.
        fence: who may write; by default, this store.

    Raises:
        AdvisorError: the database cannot be opened, is no store, or is of a newer version.
    """
    return _opened(dialect_of(where), bring_up_to_date, fence or NoFence())


def open_to_read(path: Path) -> SqlStore:
    """Open a SQLite file that a daemon has open; its tables stay as they are, and writing is an error.

    Raises:
        AdvisorError: it cannot be opened, is no store, or is of another version.
    """
    return _opened(SqliteDialect(path, reads_only=True), check_up_to_date, NoFence())


def _opened(dialect: Dialect, prepare: Callable[[sa.Engine, Dialect], None], fence: Fence) -> SqlStore:
    engine = dialect.engine()
    try:
        with translated(dialect, f"cannot open the store {dialect.name}"):
            prepare(engine, dialect)
    except BaseException:
        engine.dispose()
        raise
    return SqlStore(engine, dialect, fence)


def dialect_of(where: Path | str) -> Dialect:
    """Return the database that a file or a URL names.

    Raises:
        AdvisorError: it is no URL of a store.
    """
    if isinstance(where, Path):
        return SqliteDialect(where)
    try:
        url = sa.make_url(where)
    except (sa.exc.ArgumentError, ValueError):  # its message holds all of the URL, the password included
        raise _no_url() from None
    engine = url.get_backend_name()
    if engine == "sqlite" and url.database:
        return SqliteDialect(Path(url.database))
    if engine in {"postgres", "postgresql"}:
        return PostgresDialect(url.set(drivername="postgresql+psycopg"))
    raise _no_url()


def _no_url() -> AdvisorError:
    return AdvisorError(
        Reason.INVALID_FIELD,
        "store: is no URL of a store; give postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or none for a "
        "SQLite file in the data folder (--data-dir)",
        field="store",
    )
