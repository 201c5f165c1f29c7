"""Names and aliases of models, which were a file in each data folder."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "model_names",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("digest", sa.String, primary_key=True),
        sa.Column("is_current", sa.Boolean, nullable=False),
    )
    op.create_table(
        "alias_changes",
        sa.Column("alias", sa.String, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("target", sa.String, nullable=False),
        sa.Column("cause", sa.String, nullable=False),
        sa.Column("time", sa.Float),
    )
    revisions = op.create_table("model_revision", sa.Column("revision", _WHOLE, nullable=False))
    op.bulk_insert(revisions, [{"revision": 1}])
