"""What happened to runs besides their observations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "run_events",
        sa.Column("run_key", _WHOLE, primary_key=True, autoincrement=False),
        sa.Column("number", _WHOLE, primary_key=True, autoincrement=False),
        sa.Column("time", sa.Float, nullable=False),
        sa.Column("kind", sa.Integer, nullable=False),
        sa.Column("step", _WHOLE, nullable=False),
        sa.Column("from_step", _WHOLE),
        sa.Column("count", _WHOLE),
        sqlite_with_rowid=False,
    )
