"""Runs with their observations, meta updates and networks; replicas and shards; models, names and aliases."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = None

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "runs",
        sa.Column("key", _WHOLE, primary_key=True),
        sa.Column("run_id", _TEXT, nullable=False, unique=True),
        _required("config", sa.LargeBinary),
        *(_required(name, sa.String) for name in ("model_name", "model_digest")),
        _required("status", sa.Integer),
        _required("snapshot", sa.LargeBinary),
        *(_required(name, sa.Float) for name in ("create_time", "update_time")),
        *(
            sa.Column(name, sa.Integer, nullable=False, server_default="0")
            for name in ("shard", "loose_chunks", "world_size")
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "observations",
        *_keys("run_key", "first_step"),
        _required("steps", sa.Integer),
        _required("record", sa.LargeBinary),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "meta_updates",
        *_keys("run_key", "step"),
        _required("record", sa.LargeBinary),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "networks",
        *_keys("run_key"),
        *(_required(name, _WHOLE) for name in ("step", "updates")),
        *(_required(name, sa.LargeBinary) for name in ("snapshot", "data")),
    )
    op.create_table(
        "replicas",
        sa.Column("id", sa.String, primary_key=True),
        _required("address", sa.String),
        _required("draining", sa.Boolean),
        _required("lease_until", sa.Float),
    )
    shards = op.create_table(
        "shards",
        sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
        _required("owner", sa.String),
        _required("epoch", _WHOLE),
    )
    op.bulk_insert(shards, [{"shard": number, "owner": "", "epoch": 0} for number in range(256)])
    op.create_table(
        "models", sa.Column("digest", sa.String, primary_key=True), _required("data", sa.LargeBinary)
    )
    op.create_table(
        "model_names",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("digest", sa.String, primary_key=True),
        _required("is_current", sa.Boolean),
    )
    op.create_table(
        "alias_changes",
        sa.Column("alias", sa.String, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        *(_required(name, sa.String) for name in ("target", "cause")),
        sa.Column("time", sa.Float),
    )
    revisions = op.create_table("model_revision", _required("revision", _WHOLE))
    op.bulk_insert(revisions, [{"revision": 1}])


def _keys(*names: str) -> list[sa.Column[Any]]:
    """Return the columns of a primary key of whole numbers."""
    return [sa.Column(name, _WHOLE, primary_key=True, autoincrement=False) for name in names]


def _required(name: str, kind: Any) -> sa.Column[Any]:
    """Return a column that no row leaves out."""
    return sa.Column(name, kind, nullable=False)
