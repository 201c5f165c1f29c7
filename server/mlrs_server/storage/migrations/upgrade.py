"""Brings a database to the newest revision."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory


def upgrade(connection: sa.Connection) -> None:
    """Run the migrations to the newest revision, in the transaction of a connection."""
    command.upgrade(configured(connection), "head")


def head() -> str | None:
    """Return the newest revision that there is a migration to."""
    return ScriptDirectory.from_config(configured(None)).get_current_head()


def configured(connection: sa.Connection | None) -> Config:
    """Return Alembic's configuration, for a connection."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
