"""Runs and their observations: what SQLite files held from before revisions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "runs",
        sa.Column("key", _WHOLE, primary_key=True),
        sa.Column("run_id", _TEXT, nullable=False, unique=True),
        sa.Column("config", sa.LargeBinary, nullable=False),
        sa.Column("model_name", sa.String, nullable=False),
        sa.Column("model_digest", sa.String, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("snapshot", sa.LargeBinary, nullable=False),
        sa.Column("create_time", sa.Float, nullable=False),
        sa.Column("update_time", sa.Float, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "observations",
        sa.Column("run_key", _WHOLE, primary_key=True, autoincrement=False),
        sa.Column("first_step", _WHOLE, primary_key=True, autoincrement=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.Column("record", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
