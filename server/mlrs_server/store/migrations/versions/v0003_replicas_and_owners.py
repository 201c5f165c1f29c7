"""Daemons that share a store, and which of them owns the runs of each shard."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables; nobody owns anything yet."""
    op.create_table(
        "replicas",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("address", sa.String, nullable=False),
        sa.Column("draining", sa.Boolean, nullable=False),
        sa.Column("lease_until", sa.Float, nullable=False),
    )
    shards = op.create_table(
        "shards",
        sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("epoch", _WHOLE, nullable=False),
    )
    op.bulk_insert(shards, [{"shard": number, "owner": "", "epoch": 0} for number in range(256)])
