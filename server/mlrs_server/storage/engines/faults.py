"""Explanations of database failures and their remedies. Only this module knows the engines' error codes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import sqlalchemy as sa

_DAMAGED = (
    "stop the daemon, see how far it goes with `mlrs store check`, and bring a backup back with "
    "`mlrs store restore FILE --replace`"
)
_SQLITE_PROBLEMS = {
    sqlite3.SQLITE_FULL: "its disk is full; free some of it",
    sqlite3.SQLITE_READONLY: "it is read-only here; let this user write the file and its folder, and see "
    "that the disk is mounted for writing",
    sqlite3.SQLITE_BUSY: "another process holds it; end that process (`fuser` on the file names it)",
    sqlite3.SQLITE_CORRUPT: f"it is damaged; {_DAMAGED}",
    sqlite3.SQLITE_NOTADB: f"it is damaged, or no database at all; {_DAMAGED}",
    sqlite3.SQLITE_IOERR: "its disk fails to read or write; the system's log says more",
}
_REOPENED = {
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
}
_POSTGRES_PROBLEMS = {
    "25006": "it is read-only here; give the URL of the primary server",
    "28000": "the server does not let this user in; see its pg_hba.conf",
    "28P01": "the user or the password is wrong; give them in the URL, in PGPASSWORD or in ~/.pgpass",
    "3D000": "there is no such database; make it with `createdb`",
    "40001": "another daemon was quicker; it is tried again",
    "40P01": "another daemon was quicker; it is tried again",
    "42501": "this user may not do that there; make it the owner of the database",
    "53100": "the server's disk is full; free some of it",
    "53300": "the server has no connection left; raise its max_connections",
    "55P03": "another session holds a row or a table for too long; see pg_locks",
    "57014": "the server took too long; see pg_stat_activity",
    "57P01": "the server is shutting down",
    "57P03": "the server is starting or shutting down",
    "XX001": "the server found damaged data; restore it from a backup",
    "XX002": "the server found a damaged index; see REINDEX",
}
_POSTGRES_SAYINGS = {
    "password": "28P01",
    "does not exist": "3D000",
    "no pg_hba.conf entry": "28000",
    "too many": "53300",
    "starting up": "57P03",
    "shutting down": "57P03",
}
"""Words of a refused connection, which has no code."""


def sqlite_code(error: BaseException) -> int:
    """Return the primary code of a failure; 0 if it has none."""
    found: int = getattr(_cause(error), "sqlite_errorcode", 0)
    if found == sqlite3.SQLITE_IOERR_SHMSIZE:  # what a full disk looks like as a file is opened
        return sqlite3.SQLITE_FULL
    return found & 0xFF


def sqlite_problem(error: BaseException, path: Path) -> str:
    """Return what is wrong with a file and what to do, in a line."""
    code, cause = sqlite_code(error), _cause(error)
    if code == sqlite3.SQLITE_CANTOPEN:
        return f"it cannot be opened; see that {path.parent} is a folder that this user may write in"
    if code not in _SQLITE_PROBLEMS:
        return _first_line(cause)
    return f"{_SQLITE_PROBLEMS[code]} ({getattr(cause, 'sqlite_errorname', '')}: {_first_line(cause)})"


def sqlite_is_spoilt(error: BaseException) -> bool:
    """Return whether a file should be opened again after a failure: it, or what it lies on, may be mended."""
    return sqlite_code(error) in _REOPENED


def postgres_problem(error: BaseException) -> str:
    """Return what is wrong with a server and what to do, in a line."""
    cause = _cause(error)
    said = _first_line(cause)
    code = getattr(cause, "sqlstate", None)
    if code is None:
        code = next((known for words, known in _POSTGRES_SAYINGS.items() if words in said), None)
    if code in _POSTGRES_PROBLEMS:
        return f"{_POSTGRES_PROBLEMS[code]} ({said})"
    if code is None and isinstance(error, sa.exc.OperationalError):
        return f"the server cannot be reached; see that it runs, and that host and port are right ({said})"
    return said


def _cause(error: BaseException) -> BaseException:
    """Return the driver's exception inside of SQLAlchemy's."""
    return getattr(error, "orig", None) or error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
