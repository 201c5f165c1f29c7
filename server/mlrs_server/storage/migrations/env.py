"""What Alembic runs: migrations on the connection that it is given, inside its transaction."""

from __future__ import annotations

from alembic import context

from mlrs_server.storage.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()
