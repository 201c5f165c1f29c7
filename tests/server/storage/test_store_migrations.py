"""Stores of older versions are brought up to date as they are opened; of newer ones they are refused."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from mlrs_core.config import Optimizer
from mlrs_core.search import SearchSetup, TrialResult
from mlrs_server.domain.searches import RecordedSearch
from mlrs_server.domain.shards import shard_of
from mlrs_server.errors import Reason
from mlrs_server.storage import chunks, codec, open_store, schema
from mlrs_server.storage.factory import dialect_of
from mlrs_server.storage.migrations.upgrade import configured, head, upgrade
from mlrs_server.storage.tables import VERSION_TABLE, metadata
from tests.server.storage.stored import CONFIG, got, new_run, same, snapshot_at, stretch, update
from tests.server.support import raises
from tests.support.postgres import PostgresServer

SEARCH = RecordedSearch(
    start="s",
    setup=SearchSetup(horizon=100, optimizer=Optimizer.ADAM),
    keep_policy=False,
    charge_steps=False,
    results=(TrialResult(learning_rate=0.1, steps=8, loss=2.0),),
)


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """An empty database of each engine."""
    if request.param == "sqlite":
        return tmp_path / "store"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def engine(where: Path | str) -> Iterator[sa.Engine]:
    """The engine of that database."""
    engine = dialect_of(where).engine()
    yield engine
    engine.dispose()


def write_old(where: Path | str, *statements: str) -> None:
    """Write a store of the first revision, with runs "a" and "b" of three steps in two chunks each."""
    engine = dialect_of(where).engine()
    with engine.begin() as connection:
        command.upgrade(configured(connection), schema.REVISIONS[0])
        tables = sa.MetaData()
        tables.reflect(connection, only=["runs", "observations"])
        for key, name in enumerate("ab", 1):
            run = {
                "key": key,
                "run_id": name,
                "config": codec.pack_config(CONFIG),
                "model_name": "m",
                "model_digest": "d" * 64,
                "status": 1,
                "snapshot": codec.pack_snapshot(snapshot_at(3)),
                "create_time": 5.0,
                "update_time": 6.0,
                "shard": shard_of(name),
                "loose_chunks": 2,
            }
            connection.execute(tables.tables["runs"].insert(), run)
            for start, end in ((0, 2), (2, 3)):
                record = chunks.pack_chunk(stretch(start, end))
                chunk = {"run_key": key, "first_step": start, "steps": end - start, "record": record}
                connection.execute(tables.tables["observations"].insert(), chunk)
        for statement in statements:
            connection.execute(sa.text(statement))
    engine.dispose()


def asked(path: Path, query: str) -> list[Any]:
    """Return what a file says, behind the store's back."""
    with closing(sqlite3.connect(path)) as file:
        return file.execute(query).fetchall()


def test_a_store_of_an_older_revision_is_brought_up_to_date(where: Path | str) -> None:
    """Its runs are read as they were, and go on."""
    write_old(where)
    with closing(open_store(where)) as store:
        run = got(store, "a")
        assert codec.pack_snapshot(run.snapshot) == codec.pack_snapshot(snapshot_at(3))
        assert (run.config, run.create_time, run.update_time) == (CONFIG, 5.0, 6.0)
        assert (run.task, run.feeder, run.tags, run.note) == ("", "", {}, "")
        assert same(store.read(run.key, 0, 10), stretch(0, 3))
        store.append([update(run, 3, 5)])
        assert same(store.read(run.key, 0, 10), stretch(0, 5))
        assert store.search(run.key) is None
        store.put_search(run, 1, SEARCH)
        assert store.search(run.key) == (1, SEARCH)
        with store.reading() as connection:
            counts = connection.execute(sa.text("SELECT loose_chunks FROM runs ORDER BY key"))
            assert counts.scalars().all() == [3, 2]
            found = connection.execute(sa.text("SELECT version_num FROM mlrs_version"))
            assert found.scalars().all() == [schema.HEAD]


def test_a_copy_is_kept_before_a_store_is_brought_up_to_date(tmp_path: Path) -> None:
    """The file as it was lies beside the store, and is made once."""
    path, copy = tmp_path / "mlrs.sqlite3", tmp_path / f"mlrs.sqlite3.before-{schema.HEAD}"
    write_old(path)
    open_store(path).close()
    assert asked(copy, "SELECT version_num FROM mlrs_version") == [(schema.REVISIONS[0],)]
    assert asked(copy, "SELECT run_id FROM runs ORDER BY key") == [("a",), ("b",)]
    assert len(asked(copy, "SELECT * FROM observations")) == 4
    made = copy.stat().st_mtime_ns
    open_store(path).close()
    assert copy.stat().st_mtime_ns == made
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, copy.name]


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    """A file that cannot be brought up to date is as it was, and is refused again."""
    path = tmp_path / "mlrs.sqlite3"
    write_old(path, "ALTER TABLE runs ADD COLUMN feeder TEXT")  # not ours, and in the way
    before = asked(path, "SELECT sql FROM sqlite_master")
    for _ in range(2):
        with raises(Reason.STORE, match="duplicate column name: feeder"):
            open_store(path)
        assert asked(path, "SELECT sql FROM sqlite_master") == before
        assert asked(path, "SELECT version_num FROM mlrs_version") == [(schema.REVISIONS[0],)]


def test_a_store_of_an_unreleased_version_is_refused(where: Path | str, engine: sa.Engine) -> None:
    """A database of a revision before the first released one is refused by what it is."""
    open_store(where).close()
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE mlrs_version SET version_num = '0003'"))
    with raises(Reason.STORE, match="is of version 0003, which no released version of mlrs wrote"):
        open_store(where)


def test_a_newer_store_is_refused(where: Path | str, engine: sa.Engine) -> None:
    """A database of a later version is not touched; the message says to upgrade."""
    open_store(where).close()
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE mlrs_version SET version_num = '9999'"))
    with raises(Reason.STORE_NEWER, match="is of version 9999; upgrade mlrs"):
        open_store(where)


def test_migrations_make_what_new_stores_get(where: Path | str, engine: sa.Engine) -> None:
    """All migrations in a row give the tables that a new store is made with, to the letter."""
    with engine.begin() as connection:
        upgrade(connection)
        compared = MigrationContext.configure(
            connection, opts={"compare_server_default": True, "version_table": VERSION_TABLE}
        )
        assert compare_metadata(compared, metadata) == []
        migrated = _described(connection)
        for table in reversed(metadata.sorted_tables):
            table.drop(connection)
        connection.execute(sa.text(f"DROP TABLE {VERSION_TABLE}"))
    open_store(where).close()
    with engine.begin() as connection:
        assert _described(connection) == migrated


def test_migrations_only_add(engine: sa.Engine) -> None:
    """Since replicas share tables, migrations keep all columns, and new ones of old tables have defaults.

    Replicas of the version before go on writing, in statements that name their columns.
    """
    with engine.begin() as connection:
        config = configured(connection)
        command.upgrade(config, schema.REVISIONS[0])
        for revision in schema.REVISIONS[1:]:
            before = _columns(connection)
            command.upgrade(config, revision)
            after = _columns(connection)
            for table, columns in before.items():
                assert columns.items() <= after[table].items(), (revision, table)
                added = [after[table][name] for name in after[table].keys() - columns.keys()]
                assert all(nullable or default for _, nullable, default in added), (revision, table)


def _columns(connection: sa.Connection) -> dict[str, dict[str, tuple[str, bool, str | None]]]:
    """Return the type of each column by table, whether it may be empty, and its default."""
    inspector = sa.inspect(connection)
    return {
        table: {
            column["name"]: (repr(column["type"]), column["nullable"], column["default"])
            for column in inspector.get_columns(table)
        }
        for table in inspector.get_table_names()
    }


def test_a_daemon_that_runs_goes_on_under_newer_tables(where: Path | str, engine: sa.Engine) -> None:
    """A store that was open before a newer daemon changed the tables reads and writes as before."""
    with closing(open_store(where)) as store:
        (run,) = store.create([new_run("a")])
        with engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE runs ADD COLUMN newer INTEGER NOT NULL DEFAULT 7"))
            connection.execute(sa.text("CREATE TABLE newer (run_key INTEGER PRIMARY KEY)"))
            connection.execute(sa.text("UPDATE mlrs_version SET version_num = '9999'"))
        store.append([update(run, 0, 5)])
        store.create([new_run("b")])
        assert same(store.read(run.key, 0, 10), stretch(0, 5))
        assert [each.run_id for each in store.list(prefix="", status=None, after="", limit=9)] == ["a", "b"]
        with engine.begin() as connection:
            assert connection.execute(sa.text("SELECT newer FROM runs")).scalars().all() == [7, 7]
        store.delete(run)


def _described(connection: sa.Connection) -> dict[str, Any]:
    """Return all that an engine says about its tables."""
    inspector = sa.inspect(connection)
    tables = {
        name: (
            [{**column, "type": repr(column["type"])} for column in inspector.get_columns(name)],
            inspector.get_pk_constraint(name),
            inspector.get_unique_constraints(name),
            inspector.get_indexes(name),
        )
        for name in inspector.get_table_names()
    }
    if connection.dialect.name == "sqlite":
        texts = connection.execute(sa.text("SELECT name, sql FROM sqlite_master")).all()
        kinds = {
            name: [word in (sql or "") for word in ("AUTOINCREMENT", "WITHOUT ROWID")] for name, sql in texts
        }
        return {"tables": tables, "kinds": kinds}
    return {"tables": tables}


def test_daemons_that_start_together_make_the_tables_once(postgres: PostgresServer) -> None:
    """Of several that find an empty database at once, one makes the tables, and all go on."""
    url = postgres.new_database()
    with ThreadPoolExecutor(6) as threads:
        stores = list(threads.map(open_store, [url] * 6))
    runs = [store.create([new_run(f"run-{index}")])[0] for index, store in enumerate(stores)]
    assert len({run.key for run in runs}) == len(stores)
    assert set(stores[0].get([run.run_id for run in runs])) == {run.run_id for run in runs}
    for store in stores:
        store.close()


def test_the_newest_revision_is_the_one_that_is_known() -> None:
    """The list of revisions, which spares the import of Alembic, is that of the migrations."""
    assert head() == schema.HEAD


def test_a_store_that_is_up_to_date_needs_no_alembic(tmp_path: Path) -> None:
    """Making a store, and opening it again, does not import what only migrations need."""
    code = (
        "import sys, pathlib; from mlrs_server.storage import open_store\n"
        f"for _ in range(2): open_store(pathlib.Path({str(tmp_path / 'store')!r})).close()\n"
        "assert not [name for name in sys.modules if name.startswith('alembic')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
