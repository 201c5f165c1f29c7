"""What differs from one database engine to the next, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import sqlalchemy as sa

Row = tuple[Any, ...]


class Dialect(Protocol):
    """One database, by its engine."""

    @property
    def name(self) -> str:
        """What messages call the database; without a password."""
        ...

    def engine(self) -> sa.Engine:
        """Return an engine whose transactions write at once, unless their option `READS` is set."""
        ...

    # ------------------------------------------------------------------------------- the schema

    def lock_schema(self, connection: sa.Connection) -> None:
        """Keep others from making or changing tables until this transaction ends."""
        ...

    def check_foreign(self, tables: set[str]) -> None:
        """Check that what has no version of ours may get our tables, given the names of those that it has.

        Raises:
            AdvisorError: it is a database of something else.
        """
        ...

    def keep_copy(self, engine: sa.Engine, revision: str) -> None:
        """Keep a copy of the database, if it is a file, before it is brought to a revision."""
        ...

    # --------------------------------------------------------------------------------- the rows

    def next_keys(self, connection: sa.Connection, count: int) -> Sequence[int]:
        """Return keys for so many new runs, ascending."""
        ...

    def insert(self, connection: sa.Connection, rows: Sequence[Row]) -> int:
        """Insert rows of `runs`, without those whose ids are taken; return how many."""
        ...

    def append(self, connection: sa.Connection, chunks: Sequence[Row], moves: Sequence[Row]) -> None:
        """Insert rows of `observations`, and move runs: rows of status, snapshot, time and key."""
        ...

    # ------------------------------------------------------------------------------------ upkeep

    def freeze(self, connection: sa.Connection) -> None:
        """Have a transaction that has just begun read the database as it is now, to its end."""
        ...

    def give_keys_after(self, connection: sa.Connection, last: int) -> None:
        """Have new runs get keys beyond one, after runs were inserted with keys of their own."""
        ...

    def vacuum(self, engine: sa.Engine) -> None:
        """Give back the space of rows that were deleted."""
        ...

    def inspect(self, connection: sa.Connection) -> str | None:
        """Return what is wrong with the database's own structures, if it can say."""
        ...

    # --------------------------------------------------------------------------------- failures

    def explain(self, error: BaseException) -> str:
        """Return what is wrong and what to do, in a line."""
        ...

    def is_spoilt(self, error: BaseException) -> bool:
        """Return whether a connection that failed so is no good any more."""
        ...


READS = "mlrs_reads"
"""The execution option of a transaction that only reads."""
