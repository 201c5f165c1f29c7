"""Meta updates of runs, the networks that they led to, and how many ranks a run has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables and add the column."""
    op.add_column("runs", sa.Column("world_size", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "meta_updates",
        sa.Column("run_key", _WHOLE, primary_key=True, autoincrement=False),
        sa.Column("step", _WHOLE, primary_key=True, autoincrement=False),
        sa.Column("record", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "networks",
        sa.Column("run_key", _WHOLE, primary_key=True, autoincrement=False),
        sa.Column("step", _WHOLE, nullable=False),
        sa.Column("updates", _WHOLE, nullable=False),
        sa.Column("snapshot", sa.LargeBinary, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
