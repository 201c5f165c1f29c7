"""What people note of their runs, and the indices of the lists of runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the column, and make the table and the indices."""
    op.add_column("runs", sa.Column("note", sa.LargeBinary))
    op.create_table(
        "run_tags",
        sa.Column("run_key", _WHOLE, primary_key=True, autoincrement=False),
        sa.Column("name", sa.LargeBinary, primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("run_tags_by_value", "run_tags", ["name", "value", "run_key"])
    op.create_index("runs_by_creation", "runs", ["create_time", "run_id"])
    op.create_index("runs_by_task", "runs", ["task"])
    op.create_index("runs_by_model", "runs", ["model_name", "model_digest"])
