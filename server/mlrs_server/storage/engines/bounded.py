"""A connection to PostgreSQL on which every wait is bounded, whatever happens to the server.

The system notices a server that is cut off (TCP_USER_TIMEOUT), and a server that takes too long stops by
itself (statement_timeout). A server that hangs while its machine still acknowledges packets is noticed by a
thread that watches statements and shuts the connection's socket down.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import psycopg

LOOK_S = 0.25
"""The interval at which the thread checks the statements under way."""
PATIENCE_S = 10.0
"""The time that a statement may take."""
PART_BYTES = 4 << 20
"""Rows of about so many bytes are sent as a statement of their own, with a time of their own."""

PARAMETERS: dict[str, Any] = {
    "client_encoding": "utf8",
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": int(1000 * PATIENCE_S),
    "application_name": "mlrs",
    "options": " ".join(
        f"-c {name}={int(1000 * seconds)}"
        for name, seconds in {
            "statement_timeout": PATIENCE_S,
            "lock_timeout": PATIENCE_S / 2,
            # A daemon that is paused in the middle of a transaction must not keep others from its rows.
            "idle_in_transaction_session_timeout": PATIENCE_S,
        }.items()
    ),
}
"""The parameters of connections; those of a URL take precedence."""


_lock = threading.Lock()
_deadlines: dict[BoundedConnection, float] = {}
"""The deadline of each connection's statement, on the monotonic clock; used under the lock."""


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that gives up on a server that hangs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory = _BoundedCursor
        self.patience_s = PATIENCE_S
        """The time that the server may take to answer a statement."""
        self._is_shut = False

    def commit(self) -> None:
        """Commit, within bounds."""
        with self.bounded():
            super().commit()

    def rollback(self) -> None:
        """Roll back, within bounds."""
        with self.bounded():
            super().rollback()

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Run a block that must end within `patience_s`.

        Raises:
            psycopg.OperationalError: the server did not answer in time; the connection is lost.
        """
        _start_watching()
        with _lock:
            _deadlines[self] = time.monotonic() + self.patience_s
        try:
            yield
        except psycopg.Error as error:
            if self._is_shut:
                raise psycopg.OperationalError(
                    f"the server has not answered for {self.patience_s:g} s"
                ) from error
            raise
        finally:
            with _lock:
                del _deadlines[self]

    def shut(self) -> None:
        """Shut the connection down, so that waits on it fail. Called on any thread, under the lock."""
        self._is_shut = True
        with (
            suppress(OSError, psycopg.Error),  # it has just ended by itself
            socket.socket(fileno=os.dup(self.fileno())) as same,
        ):
            same.shutdown(socket.SHUT_RDWR)


class _BoundedCursor(psycopg.Cursor[Any]):
    """A cursor whose statements are bounded."""

    connection: BoundedConnection

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Execute a statement, within bounds."""
        with self.connection.bounded():
            return super().execute(*args, **kwargs)

    def executemany(self, query: Any, params_seq: Iterable[Any], **kwargs: Any) -> None:
        """Execute a statement for each of many rows; each few megabytes of rows are within bounds."""
        for rows in _in_parts(params_seq):
            with self.connection.bounded():
                super().executemany(query, rows, **kwargs)


def _in_parts(rows: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield the rows in parts of about `PART_BYTES`: a slow network is not a server that does not answer."""
    part: list[Any] = []
    size = 0
    for row in rows:
        part.append(row)
        values = row.values() if isinstance(row, Mapping) else row
        size += sum(len(value) for value in values if isinstance(value, bytes))
        if size >= PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


@cache
def _start_watching() -> None:
    """Start the thread, once in a process."""
    threading.Thread(target=_watch, name="mlrs-postgresql", daemon=True).start()


def _watch() -> None:
    """Shut connections down whose server is late, as long as the process lives."""
    while True:
        time.sleep(LOOK_S)
        with _lock:
            for connection, until in _deadlines.items():
                if time.monotonic() > until:
                    connection.shut()
