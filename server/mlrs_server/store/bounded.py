"""A connection to PostgreSQL on which nothing waits for ever, whatever becomes of the server.

A server that is cut off is noticed by the system (TCP_USER_TIMEOUT), and one that takes too long stops by
itself (statement_timeout). One that stands still, with its machine acknowledging all it is sent, only the
client can give up on.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg
from psycopg.waiting import Ready

PATIENCE_S = 10.0
"""How long a statement may take."""
LONG_PATIENCE_S = 3600.0
"""How long, while tables change."""

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
"""How connections are made; what a URL says goes first."""


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that gives up on a server that stands still."""

    _patience_s = PATIENCE_S

    def be_impatient(self) -> None:
        """Give the server as long as a statement may take."""
        self._patience_s = PATIENCE_S

    def be_patient(self) -> None:
        """Give it as long as changing tables may take, until told otherwise."""
        self._patience_s = LONG_PATIENCE_S

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Wait for what a generator of psycopg's waits for, so long at most.

        Raises:
            psycopg.OperationalError: the server was silent; the connection is closed.
        """
        try:
            return super().wait(_within(gen, self._patience_s), *args, **kwargs)
        except TimeoutError as error:
            self.pgconn.finish()
            raise psycopg.OperationalError(str(error)) from error


def _within(gen: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
    """Pass on what a generator yields and is sent, until its time is up; psycopg asks every 0.1 s."""
    until = time.monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready in {None, Ready.NONE} and time.monotonic() > until:
                raise TimeoutError(f"the server has not answered for {seconds:g} s")
            wanted = gen.send(ready)
    except StopIteration as done:
        return done.value
