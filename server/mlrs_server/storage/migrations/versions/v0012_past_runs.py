"""How the runs of tasks ended, for the next run of each task."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "past_runs",
        sa.Column("run_key", _WHOLE, primary_key=True, autoincrement=False),
        sa.Column("task", _TEXT, nullable=False),
        sa.Column("time", sa.Float, nullable=False),
        sa.Column("family", sa.String),
        sa.Column("record", sa.LargeBinary),
    )
    op.create_index("past_runs_of_task", "past_runs", ["task", "family", "run_key"])
