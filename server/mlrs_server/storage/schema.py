"""Tables made, or brought up to date, as a store is opened."""

from __future__ import annotations

import sqlalchemy as sa

from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.storage.engines.dialect import READS, Dialect
from mlrs_server.storage.tables import VERSION_TABLE, metadata

REVISIONS = ("0006", "0007", "0008", "0009", "0010", "0011", "0012", "0013", "0014")
"""Those of `migrations/versions`, in their order."""
HEAD = REVISIONS[-1]
"""The one that `tables` describes."""

_version = sa.Table(
    VERSION_TABLE,
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)


def bring_up_to_date(engine: sa.Engine, dialect: Dialect) -> None:
    """Make the tables, or bring them to the newest revision, in one transaction.

    Raises:
        AdvisorError: the database is of something else, or of a newer version.
        SQLAlchemyError: it cannot be read or written.
    """
    with engine.begin() as connection:
        found = _revision(connection, dialect)
        if found == HEAD:  # a store that cannot be written must be seen now, not at the first flush
            connection.execute(_version.update().values(version_num=HEAD))
            return
    if found is not None:
        dialect.keep_copy(engine, HEAD)
    with engine.begin() as connection:
        dialect.lock_schema(connection)
        found = _revision(connection, dialect)  # another daemon may have come first
        if found is None:
            metadata.create_all(connection)
            _version.create(connection)
            connection.execute(_version.insert().values(version_num=HEAD))
        elif found != HEAD:
            from mlrs_server.storage.migrations.upgrade import upgrade  # Alembic costs start-up time

            upgrade(connection)


def check_up_to_date(engine: sa.Engine, dialect: Dialect) -> None:
    """Check that a database is of the newest revision, changing nothing.

    Raises:
        AdvisorError: it is not.
        SQLAlchemyError: it cannot be read.
    """
    with engine.connect().execution_options(**{READS: True}) as connection:
        if (found := _revision(connection, dialect)) != HEAD:
            raise AdvisorError(
                Reason.STORE, f"the store {dialect.name} is of version {found}, and mlrs wants {HEAD}"
            )


def _revision(connection: sa.Connection, dialect: Dialect) -> str | None:
    """Return the revision of a database; `None` if it has no tables yet."""
    tables = set(sa.inspect(connection).get_table_names())
    if VERSION_TABLE not in tables:
        dialect.check_foreign(tables)
        return None
    found = connection.execute(sa.select(_version.c.version_num)).scalar()
    if str(found) < REVISIONS[0]:
        raise AdvisorError(
            Reason.STORE,
            f"the store {dialect.name} is of version {found}, which no released version of mlrs wrote; "
            f"this one reads {REVISIONS[0]} to {HEAD}",
        )
    if found not in REVISIONS:
        raise AdvisorError(
            Reason.STORE_NEWER,
            f"the store {dialect.name} is of version {found}; upgrade mlrs, which knows up to {HEAD}",
        )
    return str(found)
