"""What runs train, and who sends their observations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the columns."""
    op.add_column("runs", sa.Column("task", _TEXT, nullable=False, server_default=sa.text("''")))
    op.add_column("runs", sa.Column("feeder", sa.String, nullable=False, server_default=sa.text("''")))
