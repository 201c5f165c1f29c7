"""Runs have a shard, by which replicas own them, and a count of the chunks that wait to be merged."""

from __future__ import annotations

import zlib

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns, and fill them for the runs that there are."""
    for name in ("shard", "loose_chunks"):
        op.add_column("runs", sa.Column(name, sa.Integer, nullable=False, server_default="0"))
    runs = sa.table(
        "runs", sa.column("key"), sa.column("run_id"), sa.column("shard"), sa.column("loose_chunks")
    )
    chunks = sa.table("observations", sa.column("run_key"))
    connection = op.get_bind()
    counted = sa.select(sa.func.count()).where(chunks.c.run_key == runs.c.key).scalar_subquery()
    connection.execute(runs.update().values(loose_chunks=counted))
    shards = [
        {"at_key": row.key, "to_shard": zlib.crc32(row.run_id.encode()) & 0xFF}
        for row in connection.execute(sa.select(runs.c.key, runs.c.run_id))
    ]
    if shards:
        moved = runs.update().where(runs.c.key == sa.bindparam("at_key"))
        connection.execute(moved.values(shard=sa.bindparam("to_shard")), shards)
