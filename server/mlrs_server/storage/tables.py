"""The tables, and runs as their rows. Every change here needs a migration in `migrations/versions`."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mlrs_server.domain.notes import MAX_NOTE
from mlrs_server.domain.run_snapshot import RunSnapshot
from mlrs_server.domain.shards import SHARDS
from mlrs_server.storage import codec
from mlrs_server.storage.protocol import NewRun, StoredRun
from mlrs_server.tenancy import SEPARATOR, full_name

VERSION_TABLE = "mlrs_version"
"""The table in which Alembic keeps the revision of a database."""

metadata = sa.MetaData()

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""A 64-bit integer. SQLite's `INTEGER` has 64 bits, and only columns of that name increment by themselves."""
TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")
"""Text compared byte by byte, whatever the database's collation."""

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("key", WHOLE, primary_key=True),
    sa.Column("run_id", TEXT, nullable=False, unique=True),
    sa.Column("config", sa.LargeBinary, nullable=False),
    sa.Column("model_name", sa.String, nullable=False),
    sa.Column("model_digest", sa.String, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("snapshot", sa.LargeBinary, nullable=False),
    sa.Column("create_time", sa.Float, nullable=False),
    sa.Column("update_time", sa.Float, nullable=False),
    sa.Column("shard", sa.Integer, nullable=False, server_default="0"),
    sa.Column("loose_chunks", sa.Integer, nullable=False, server_default="0"),
    sa.Column("world_size", sa.Integer, nullable=False, server_default="0"),
    sa.Column("task", TEXT, nullable=False, server_default=sa.text("''")),
    sa.Column("feeder", sa.String, nullable=False, server_default=sa.text("''")),
    sa.Column("note", sa.LargeBinary),
    sa.Index("runs_by_creation", "create_time", "run_id"),
    sa.Index("runs_by_task", "task"),
    sa.Index("runs_by_model", "model_name", "model_digest"),
    sqlite_autoincrement=True,  # the key of a deleted run is never reused
)
"""`loose_chunks` is the number of rows of observations that a run got since they were last merged.
`world_size` is the number of its ranks, 0 without `config.ranks`. `task` is "" if an older version of mlrs
created the run. `note` is UTF-8, which no engine refuses to read where it is damaged; no note is NULL. No
index has `update_time`, which every flush sets: PostgreSQL would make new entries in all indices then."""

run_tags = sa.Table(
    "run_tags",
    metadata,
    sa.Column("run_key", WHOLE, primary_key=True, autoincrement=False),
    sa.Column("name", sa.LargeBinary, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
    sa.Index("run_tags_by_value", "name", "value", "run_key"),
    sqlite_with_rowid=False,
)
"""The tags of runs, UTF-8 as the note."""

observations = sa.Table(
    "observations",
    metadata,
    sa.Column("run_key", WHOLE, primary_key=True, autoincrement=False),
    sa.Column("first_step", WHOLE, primary_key=True, autoincrement=False),
    sa.Column("steps", sa.Integer, nullable=False),
    sa.Column("record", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

meta_updates = sa.Table(
    "meta_updates",
    metadata,
    sa.Column("run_key", WHOLE, primary_key=True, autoincrement=False),
    sa.Column("step", WHOLE, primary_key=True, autoincrement=False),
    sa.Column("record", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""The meta updates of runs, at most one for each step."""

networks = sa.Table(
    "networks",
    metadata,
    sa.Column("run_key", WHOLE, primary_key=True, autoincrement=False),
    sa.Column("step", WHOLE, nullable=False),
    sa.Column("updates", WHOLE, nullable=False),
    sa.Column("snapshot", sa.LargeBinary, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
"""The newest checkpoint of a run's adapted weights: before observing `step`, after `updates` meta updates,
with the run's snapshot then. A replay of later observations and updates gives the weights since."""

searches = sa.Table(
    "searches",
    metadata,
    sa.Column("run_key", WHOLE, primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("record", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""The searches that runs began before their first step, each with its trials so far; the newest counts."""

past_runs = sa.Table(
    "past_runs",
    metadata,
    sa.Column("run_key", WHOLE, primary_key=True, autoincrement=False),
    sa.Column("task", TEXT, nullable=False),
    sa.Column("time", sa.Float, nullable=False),
    sa.Column("family", sa.String),
    sa.Column("record", sa.LargeBinary),
    sa.Index("past_runs_of_task", "task", "family", "run_key"),
)
"""How the runs of a task ended, by the task's full name; no `record`: the run is under way. `time` is when it
ended, or was created. `family` is the kind of optimizer that it says something about; "": it says nothing."""

run_events = sa.Table(
    "run_events",
    metadata,
    sa.Column("run_key", WHOLE, primary_key=True, autoincrement=False),
    sa.Column("number", WHOLE, primary_key=True, autoincrement=False),
    sa.Column("time", sa.Float, nullable=False),
    sa.Column("kind", sa.Integer, nullable=False),
    sa.Column("step", WHOLE, nullable=False),
    sa.Column("from_step", WHOLE),
    sa.Column("count", WHOLE),
    sqlite_with_rowid=False,
)
"""What happened to runs besides their observations: the newest events of each, with their numbers from 1."""

replicas = sa.Table(
    "replicas",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("address", sa.String, nullable=False),
    sa.Column("draining", sa.Boolean, nullable=False),
    sa.Column("lease_until", sa.Float, nullable=False),
)
"""The daemons that share the store. Leases end on the database's clock, in seconds since the epoch."""

shards = sa.Table(
    "shards",
    metadata,
    sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("owner", sa.String, nullable=False),
    sa.Column("epoch", WHOLE, nullable=False),
)
"""The owner of each shard's runs, a replica's id or "", and how often it changed; always `SHARDS` rows."""

models = sa.Table(
    "models",
    metadata,
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
"""The files of models that were imported, or that runs were created with."""

model_names = sa.Table(
    "model_names",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("is_current", sa.Boolean, nullable=False),
)
"""Every model that a name refers to or once referred to; names are full names (`tenancy.py`)."""

alias_changes = sa.Table(
    "alias_changes",
    metadata,
    sa.Column("alias", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("target", sa.String, nullable=False),
    sa.Column("cause", sa.String, nullable=False),
    sa.Column("time", sa.Float),
)
"""The newest targets of each alias; it points at the target of the highest number."""

model_revision = sa.Table("model_revision", metadata, sa.Column("revision", WHOLE, nullable=False))
"""One row, which counts the changes of the two tables above. By it daemons notice that these have changed,
and exclude each other when they change them."""


@sa.event.listens_for(model_revision, "after_create")
def _fill_revision(_table: sa.Table, connection: sa.Connection, **_: Any) -> None:
    """Begin at the first revision."""
    connection.execute(model_revision.insert(), {"revision": 1})


@sa.event.listens_for(shards, "after_create")
def _fill_shards(_table: sa.Table, connection: sa.Connection, **_: Any) -> None:
    """Begin with shards that nobody owns."""
    connection.execute(shards.insert(), [{"shard": n, "owner": "", "epoch": 0} for n in range(SHARDS)])


PUT_MODEL = sa.text(
    "INSERT INTO models (digest, data) VALUES (:digest, :data) "
    "ON CONFLICT (digest) DO UPDATE SET data = excluded.data"
).bindparams(sa.bindparam("data", type_=sa.LargeBinary))
"""Stores a model. Importing a model again repairs a damaged one."""
PUT_UPDATE = sa.text(
    "INSERT INTO meta_updates (run_key, step, record) VALUES (:run_key, :step, :record) "
    "ON CONFLICT (run_key, step) DO UPDATE SET record = excluded.record"
).bindparams(sa.bindparam("record", type_=sa.LargeBinary))
"""Stores a meta update. It may be there already: a transaction of unknown outcome is repeated."""
PUT_CHECKPOINT = sa.text(
    "INSERT INTO networks (run_key, step, updates, snapshot, data) "
    "VALUES (:run_key, :step, :updates, :snapshot, :data) ON CONFLICT (run_key) DO UPDATE "
    "SET step = excluded.step, updates = excluded.updates, snapshot = excluded.snapshot, data = excluded.data"
).bindparams(sa.bindparam("snapshot", type_=sa.LargeBinary), sa.bindparam("data", type_=sa.LargeBinary))
"""Stores a run's newest checkpoint."""
PUT_SEARCH = sa.text(
    "INSERT INTO searches (run_key, attempt, record) VALUES (:run_key, :attempt, :record) "
    "ON CONFLICT (run_key, attempt) DO UPDATE SET record = excluded.record"
).bindparams(sa.bindparam("record", type_=sa.LargeBinary))
"""Stores a search with its trials so far. It may be there already, as a meta update."""
PUT_TAG = sa.text(
    "INSERT INTO run_tags (run_key, name, value) VALUES (:run_key, :name, :value) "
    "ON CONFLICT (run_key, name) DO UPDATE SET value = excluded.value"
).bindparams(sa.bindparam("name", type_=sa.LargeBinary), sa.bindparam("value", type_=sa.LargeBinary))
"""Sets a tag of a run."""
BEGIN_PAST_RUN = sa.text(
    "INSERT INTO past_runs (run_key, task, time) VALUES (:run_key, :task, :time) "
    "ON CONFLICT (run_key) DO NOTHING"
)
"""Notes that a run is under way, unless it is noted already."""
FIND = sa.select(runs).where(runs.c.run_id.in_(sa.bindparam("run_ids", expanding=True)))
"""Finds runs by their ids."""
MOVE = (
    runs.update()
    .where(runs.c.key == sa.bindparam("at_key"))
    .values(status=sa.bindparam("status"), snapshot=sa.bindparam("snapshot"))
)
"""Moves a run to a snapshot."""


def row_of(run: StoredRun) -> tuple[Any, ...]:
    """Return a run as a row, in the order of the columns."""
    return (
        run.key,
        run.run_id,
        codec.pack_config(run.config, run.counters_at),
        run.model_name,
        run.model_digest,
        int(run.snapshot.status),
        codec.pack_snapshot(run.snapshot),
        run.create_time,
        run.update_time,
        run.shard,
        0,
        run.world_size,
        run.task,
        run.feeder,
        run.note.encode() or None,
    )


def settled_values(run: NewRun) -> dict[str, Any]:
    """Return the columns that change when a run without observations is given another config."""
    return {
        "config": codec.pack_config(run.config, run.counters_at),
        "model_name": run.model_name,
        "model_digest": run.model_digest,
        "snapshot": codec.pack_snapshot(run.snapshot),
    }


def run_of(row: Any) -> StoredRun:
    """Return the run of a row, without its tags.

    Raises:
        AdvisorError: it is damaged, or of a newer version.
    """
    # The column holds the status too, so that runs can be listed by it: a finished run's snapshot
    # is that of its last step.
    snapshot = codec.unpack_snapshot(row.snapshot, row.run_id)
    status = codec.known_status(row.status, row.run_id)
    config, counters_at = codec.unpack_config(row.config, row.run_id)
    return StoredRun(
        key=row.key,
        run_id=row.run_id,
        shard=row.shard,
        config=config,
        model_name=row.model_name,
        model_digest=row.model_digest,
        snapshot=RunSnapshot(**{**vars(snapshot), "status": status}),
        create_time=row.create_time,
        update_time=row.update_time,
        world_size=max(row.world_size, 1) if config.ranks else 0,  # `config.ranks` may have been added later
        task=row.task,
        feeder=row.feeder,
        counters_at=counters_at,
        note=text_of(row.note, MAX_NOTE),
    )


def text_of(stored: object, most: int) -> str:
    """Return stored text of at most so many characters; what is damaged of it is replaced or cut."""
    text = stored.decode(errors="replace") if isinstance(stored, bytes) else str(stored or "")
    return text[:most]


def of_tenant(
    tenant: str, prefix: str = "", *, column: sa.ColumnElement[str] = runs.c.run_id
) -> sa.ColumnElement[bool]:
    """Return the condition for a tenant's full names in a column, by default of runs, that begin so."""
    first = full_name(tenant, prefix)
    name = column
    those = sa.and_(name >= first, name < first + "\x7f") if first else sa.true()
    return those if tenant else sa.and_(those, ~name.contains(SEPARATOR))


def moved_to(key: int, snapshot: RunSnapshot) -> dict[str, Any]:
    """Return the parameters with which `MOVE` moves a run to a snapshot."""
    return {"at_key": key, "status": int(snapshot.status), "snapshot": codec.pack_snapshot(snapshot)}
