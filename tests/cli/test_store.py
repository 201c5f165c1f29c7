"""`mlrs store` on real stores of both engines."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import mlrs
from mlrs_cli.root import command
from mlrs_core.config import RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.models.checkpoint import digest_of
from mlrs_server.domain.notes import NoteChange
from mlrs_server.errors import Reason
from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.models.files import asking
from mlrs_server.storage import SqlStore, chunks, codec, open_store
from mlrs_server.storage.backups import back_up
from mlrs_server.storage.sealing import seal
from mlrs_server.storage.tables import observations, run_tags, runs, searches
from tests.server.runs.searches import ask, searched
from tests.server.storage.stored import create, facts, fill, got
from tests.server.support import LOSSES, harness, raises
from tests.support.daemon import Daemon, write_random_model
from tests.support.postgres import PostgresServer, postgres_or_skip
from tests.support.runs import open_run

ENGINES = ["sqlite", "postgresql"]
STEPS = 60
CONFIGS = {
    "a": RunConfig(horizon=100, num_classes=10),
    "b": RunConfig(horizon=90, num_classes=5),
    "scheduled": RunConfig(horizon=80, schedule=ScheduleSpec(ScheduleKind.COSINE, base_lr=0.1)),
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    server = postgres_or_skip()
    yield server
    server.remove()


@dataclass(frozen=True)
class StoreAddress:
    """The address of a store."""

    folder: Path
    """The data folder."""
    url: str | None
    """The database; none is the file in the folder."""

    def mlrs(self, name: str, *arguments: object) -> Result:
        """Run a command of `mlrs store` about it."""
        where = ["--data-dir", self.folder, *(["--store", self.url] if self.url else [])]
        line = ["store", name, *map(str, (*where, *arguments))]
        return CliRunner(env={"COLUMNS": "200"}).invoke(command, line)

    def opened(self) -> SqlStore:
        """Open the store."""
        return open_store(self.url or self.folder / "mlrs.sqlite3")


MakeStore = Callable[[str], StoreAddress]


@pytest.fixture
def make_store(tmp_path: Path, request: pytest.FixtureRequest) -> MakeStore:
    """Return a function that makes the address of an empty store of an engine."""

    def stored(engine: str) -> StoreAddress:
        folder = tmp_path / f"store-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        url = request.getfixturevalue("postgres").new_database() if engine == "postgresql" else None
        return StoreAddress(folder, url)

    return stored


@pytest.fixture(params=ENGINES)
def stored(request: pytest.FixtureRequest, make_store: MakeStore) -> StoreAddress:
    """A store of each engine with three runs, one of them finished, one begun with a search."""
    return filled(make_store(request.param))


def filled(stored: StoreAddress) -> StoreAddress:
    """Have runs observed as a daemon would."""

    async def observe() -> None:
        model = write_random_model(stored.folder / "tiny.safetensors")
        async with harness(stored.folder, model, store=stored.url) as here:
            await here.open("a", CONFIGS["a"])
            await ask(here, start="given-up")
            await searched(here, keep_policy=True)
            for name, config in CONFIGS.items():
                handle = (await here.open(name, config)).handle
                for first in range(0, STEPS, 7):
                    await here.follow(handle, LOSSES[first : min(first + 7, STEPS)], start=first)
                    await here.live.journal.flush()
            await here.finish("b")

    asyncio.run(observe())
    with closing(stored.opened()) as store:
        store.change_notes("a", NoteChange(set_tags={"team": "vision", "kept": ""}, note="to keep\n\u2028"))
    return stored


def contents(store: SqlStore) -> dict[str, Any]:
    """Return all that a store holds of runs, in comparable parts."""
    found = {}
    for run in store.list(prefix="", status=None, after="", limit=100):
        record = store.read(run.key, 0, 10**6)
        found[run.run_id] = (
            facts(run),
            record.losses.tobytes(),
            record.lrs.tobytes(),
            record.reasons.tobytes(),
            store.search(run.key),
        )
    return found


def change(stored: StoreAddress, *statements: Any) -> None:
    """Change a store behind its back."""
    with closing(stored.opened()) as store, store.transaction() as connection:
        for statement in statements:
            connection.execute(statement)


# ----------------------------------------------------------------------------------------- check


@pytest.mark.parametrize("options", [[], ["--replay"]])
def test_nothing_is_wrong_with_a_good_store(stored: StoreAddress, options: list[str]) -> None:
    """A store that a daemon wrote is said to be good, also when each run is computed again."""
    result = stored.mlrs("check", *options)
    assert result.exit_code == 0, result.output
    assert f"3 runs of {3 * STEPS} steps checked; nothing is wrong" in result.output


def other_lr(stored: StoreAddress) -> Any:
    """Return a chunk of run 1 in which one learning rate is another, its checksum right."""
    with closing(stored.opened()) as store:
        record = store.read(got(store, "a").key, 7, 7)
    record.lrs[3] = np.nextafter(record.lrs[3], 1)
    return chunks.pack_chunk(record)


DAMAGES: dict[str, tuple[Callable[[StoreAddress], Any], str, str]] = {
    "record": (
        lambda _: observations.update().where(observations.c.first_step == 14).values(record=b"\0" * 40),
        "",
        "damaged record of run",
    ),
    "gap": (
        lambda _: observations.delete().where(observations.c.first_step == 14),
        "",
        "breaks off at step 14",
    ),
    "end": (
        lambda _: observations.delete().where(observations.c.first_step == 56),
        "",
        "its record has 56 steps, and its snapshot is of step 60",
    ),
    "config": (lambda _: runs.update().values(config=b"\0" * 9), "", "damaged record of run 'a'"),
    "search": (
        lambda _: searches.update().where(searches.c.attempt == 2).values(record=b"\0" * 40),
        "",
        "the record of its search is damaged; its learning rates do not depend on it",
    ),
    "newer search": (
        lambda _: searches.update().values(record=seal(b'{"later": 1}')),
        "",
        "the search of run 'a' is of a newer version of mlrs",
    ),
    "searches of no run": (
        lambda _: searches.insert().values(run_key=999, attempt=1, record=b"\0"),
        "",
        "1 searches are of no run",
    ),
    "note": (
        lambda _: runs.update().where(runs.c.run_id == "a").values(note=b"\xff"),
        "",
        "its note or one of its tags is damaged; its learning rates do not depend on them",
    ),
    "tag": (
        lambda _: run_tags.update().where(run_tags.c.name == b"kept").values(value=b"v" * 999),
        "",
        "its note or one of its tags is damaged; its learning rates do not depend on them",
    ),
    "tags of no run": (
        lambda _: run_tags.insert().values(run_key=999, name=b"x", value=b""),
        "",
        "1 tags are of no run",
    ),
    "snapshot": (lambda _: runs.update().values(snapshot=b"\0" * 60), "", "damaged record of run 'a'"),
    "status": (lambda _: runs.update().values(status=77), "", "run 'a' is of a status, 77,"),
    "orphans": (
        lambda _: observations.insert().values(run_key=999, first_step=0, steps=1, record=b"\0"),
        "",
        "1 chunks of observations are of no run",
    ),
    "learning rate": (
        lambda stored: (
            observations.update()
            .where(observations.c.run_key == 1, observations.c.first_step == 7)
            .values(record=other_lr(stored))
        ),
        "--replay",
        "its learning rate at step 10 is not what its losses give here",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found(stored: StoreAddress, damage: str) -> None:
    """Whatever is wrong is named with its run, in a table, and the status is 1."""
    change_of, option, said = DAMAGES[damage]
    change(stored, change_of(stored))
    if option:
        assert stored.mlrs("check").exit_code == 0
    result = stored.mlrs("check", *([option] if option else []))
    assert result.exit_code == 1
    assert said in result.output
    assert "Traceback" not in result.output


def test_a_state_that_losses_do_not_give_is_found(stored: StoreAddress) -> None:
    """A snapshot with another state, its checksum right, is found by replaying."""
    with closing(stored.opened()) as store:
        snapshot = got(store, "a").snapshot
    snapshot.state[0] += 1
    change(stored, runs.update().where(runs.c.run_id == "a").values(snapshot=codec.pack_snapshot(snapshot)))
    assert stored.mlrs("check").exit_code == 0
    result = stored.mlrs("check", "--replay")
    assert result.exit_code == 1
    assert "its state is not what its losses give here" in result.output


# ---------------------------------------------------------------------------- backup and restore


@pytest.mark.parametrize("source", ENGINES)
@pytest.mark.parametrize("target", ENGINES)
def test_a_backup_is_restored_into_either_engine(
    make_store: MakeStore, tmp_path: Path, source: str, target: str
) -> None:
    """Runs, records and models come back to the bit, on the same engine or the other; and go on."""
    old, new, file = filled(make_store(source)), make_store(target), tmp_path / "runs.backup"
    done = old.mlrs("backup", file)
    assert done.exit_code == 0, done.output
    done = new.mlrs("restore", file)
    assert done.exit_code == 0, done.output
    with closing(old.opened()) as one, closing(new.opened()) as other:
        assert contents(other) == contents(one)
        keys = {run.key for run in other.list(prefix="", status=None, after="", limit=9)}
        assert create(other, "new").key not in keys
    assert new.mlrs("check").exit_code == 0

    async def go_on() -> None:
        async with harness(new.folder, "tiny", store=new.url) as here:
            await here.follow((await here.open("a")).handle, LOSSES[STEPS:70], start=STEPS)

    asyncio.run(go_on())


@pytest.mark.parametrize("target", ENGINES)
def test_models_of_a_shared_store_are_backed_up(make_store: MakeStore, tmp_path: Path, target: str) -> None:
    """A backup made where no daemon runs has models, names and aliases, and these alone are restored."""
    old, new, file = filled(make_store("postgresql")), make_store(target), tmp_path / "runs.backup"
    with closing(old.opened()) as store:
        ModelCatalog(asking(store)).set_alias("best", "tiny")
    with closing(new.opened()) as store:
        ModelCatalog(asking(store)).add_file(write_random_model(tmp_path / "own.safetensors", seed=1), "own")
    elsewhere = StoreAddress(tmp_path / "elsewhere", old.url)
    elsewhere.folder.mkdir()
    assert elsewhere.mlrs("backup", file).exit_code == 0
    for _ in range(2):  # the second time, the models are there
        done = new.mlrs("restore", file, "--replace")
        assert done.exit_code == 0, done.output
    with closing(new.opened()) as store:
        catalog = ModelCatalog(asking(store))
        data = (old.folder / "tiny.safetensors").read_bytes()
        assert store.models([catalog.find("best").digest]) == {digest_of(data): data}
        assert [change.target for change in catalog.alias_changes("best")] == ["tiny"]
        with raises(Reason.MODEL_NOT_FOUND):
            catalog.find("own")


def test_a_backup_is_of_one_moment(make_store: MakeStore, tmp_path: Path) -> None:
    """What is observed while a backup is made is not in it, not even in part."""
    stored = filled(make_store("postgresql"))  # a SQLite store is one process's at a time
    with closing(stored.opened()) as store, closing(stored.opened()) as daemon:
        before = contents(store)

        def meanwhile(_: int) -> None:
            daemon.delete(got(daemon, "a")) if daemon.get(["a"]) else None
            fill(daemon, create(daemon, f"later-{len(contents(daemon))}"), 3)

        back_up(store, tmp_path / "runs.backup", meanwhile)
    with closing(open_store(tmp_path / "runs.backup")) as backup:
        assert contents(backup) == before


def test_runs_are_not_overwritten_unasked(stored: StoreAddress, tmp_path: Path) -> None:
    """A store that has runs is refused and left alone; with `--replace` it is the backup's, with no rest."""
    file = tmp_path / "runs.backup"
    assert stored.mlrs("backup", file).exit_code == 0
    with closing(stored.opened()) as store:
        before = contents(store)
        fill(store, create(store, "since"), 5)
        store.delete(got(store, "a"))
        after = contents(store)
    refused = stored.mlrs("restore", file)
    assert refused.exit_code == 1
    assert "--replace" in refused.output
    with closing(stored.opened()) as store:
        assert contents(store) == after
    done = stored.mlrs("restore", file, "--replace")
    assert done.exit_code == 0, done.output
    with closing(stored.opened()) as store:
        assert contents(store) == before
    again = stored.mlrs("backup", file)
    assert again.exit_code == 1
    assert "--replace" in again.output
    assert stored.mlrs("backup", file, "--replace").exit_code == 0


@pytest.mark.parametrize("damage", ["noise", "empty", "log"])
def test_a_damaged_file_is_replaced(make_store: MakeStore, tmp_path: Path, damage: str) -> None:
    """What is left of a SQLite store is renamed, its log too, and no part of it comes back."""
    stored, file = filled(make_store("sqlite")), tmp_path / "runs.backup"
    assert stored.mlrs("backup", file).exit_code == 0
    with closing(stored.opened()) as store:
        before = contents(store)
        path = stored.folder / "mlrs.sqlite3"
        if damage == "log":  # a log that was not written back, of what the backup knows nothing of
            fill(store, create(store, "since"), 5)
            shutil.copy(f"{path}-wal", tmp_path)
    if damage == "log":
        shutil.copy(tmp_path / f"{path.name}-wal", path.parent)
    else:
        path.write_bytes(b"\xa5" * 9000 if damage == "noise" else b"")
        assert stored.mlrs("check").exit_code == 1
    damaged = path.read_bytes()
    done = stored.mlrs("restore", file, "--replace")
    assert done.exit_code == 0, done.output
    assert path.with_name("mlrs.sqlite3.replaced").read_bytes() == damaged
    with closing(stored.opened()) as store:
        assert contents(store) == before


def test_no_part_of_a_backup_is_left(stored: StoreAddress, tmp_path: Path) -> None:
    """A backup of a damaged row is copied as it is; one that cannot be written leaves nothing behind."""
    gone = stored.mlrs("backup", tmp_path / "nowhere" / "runs.backup")
    assert gone.exit_code == 1
    assert "nowhere" in gone.output
    assert "Traceback" not in gone.output
    change(stored, runs.update().where(runs.c.run_id == "a").values(config=b"\0" * 9))
    assert stored.mlrs("backup", tmp_path / "runs.backup").exit_code == 0
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_file_that_is_no_backup_changes_nothing(stored: StoreAddress, tmp_path: Path) -> None:
    """Noise is refused by name, and the store is as it was."""
    (tmp_path / "noise").write_bytes(b"\xa5" * 9000)
    with closing(stored.opened()) as store:
        before = contents(store)
    result = stored.mlrs("restore", tmp_path / "noise", "--replace")
    assert result.exit_code == 1
    assert "damaged, or no database at all" in result.output
    with closing(stored.opened()) as store:
        assert contents(store) == before


# ------------------------------------------------------------------------------- vacuum, and all


def test_space_is_given_back(stored: StoreAddress) -> None:
    """A vacuum keeps every run, and makes a SQLite file smaller after runs were deleted."""
    with closing(stored.opened()) as store:
        for number in range(5):
            run = create(store, f"big-{number}")
            fill(store, run, 20_000)
            store.delete(run)
        before = contents(store)
    file = stored.folder / "mlrs.sqlite3"
    size = file.stat().st_size if stored.url is None else 0
    result = stored.mlrs("vacuum")
    assert result.exit_code == 0, result.output
    with closing(stored.opened()) as store:
        assert contents(store) == before
    if stored.url is None:
        assert file.stat().st_size < size / 3


def test_a_daemon_keeps_others_from_its_file(tmp_path: Path) -> None:
    """While a daemon runs, what would write its SQLite file is refused, and says what to stop and why."""
    file = tmp_path / "runs.backup"
    model = write_random_model(tmp_path / "tiny.safetensors")
    stored = StoreAddress(tmp_path / "data", None)
    with Daemon(stored.folder, "--model", str(model)) as daemon:
        shutil.copy(stored.folder / "mlrs.sqlite3", file)
        result = stored.mlrs("vacuum")
        assert result.exit_code == 1
        assert f"another daemon (process {daemon.pid}) uses" in result.output
        assert stored.mlrs("restore", file, "--replace").exit_code == 1
    assert stored.mlrs("check").exit_code == 0


def test_a_daemon_is_backed_up_and_checked_as_it_runs(tmp_path: Path) -> None:
    """Backups and checks of a SQLite store that is being written are of one moment, and disturb nothing."""
    model = write_random_model(tmp_path / "tiny.safetensors")
    stored = StoreAddress(tmp_path / "data", None)
    backups = [tmp_path / f"{number}.backup" for number in range(4)]
    ended = threading.Event()
    lrs: list[float] = []
    arguments = ("--model", str(model), "--flush-interval-s", "0.005")
    with Daemon(stored.folder, *arguments) as daemon, mlrs.connect(daemon.address) as advisor:
        run = open_run(advisor, "a", horizon=100_000, num_classes=10, timeout_s=60)

        def train() -> None:
            while not ended.is_set():
                lrs.append(run.next_lr(len(lrs), 2.0 / (1 + len(lrs)), timeout_s=60))

        training = threading.Thread(target=train)
        training.start()
        try:
            steps = []
            for backup in backups:
                wanted = run.durable_step + 50
                deadline = time.monotonic() + 60
                while run.durable_step < wanted:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                steps.append(run.durable_step)
                done = stored.mlrs("backup", backup)
                assert done.exit_code == 0, done.output
                checked = stored.mlrs("check", "--replay")
                assert checked.exit_code == 0, checked.output
                assert "nothing is wrong" in checked.output
        finally:
            ended.set()
            training.join()
        assert run.fallback_steps == 0
        daemon.kill()
    for number, (backup, least) in enumerate(zip(backups, steps, strict=True)):
        new = StoreAddress(tmp_path / f"new-{number}", None)
        assert new.mlrs("restore", backup).exit_code == 0
        assert new.mlrs("check", "--replay").exit_code == 0
        with closing(new.opened()) as store:
            row = got(store, "a")
            found = store.read(row.key, 0, 10**6).lrs.tolist()
        assert len(found) > least
        assert found == lrs[: len(found)]
    assert stored.mlrs("check", "--replay").exit_code == 0


@pytest.mark.parametrize("damage", ["noise", "empty", "cut", "a page", "another database"])
def test_a_damaged_backup_says_so(make_store: MakeStore, tmp_path: Path, damage: str) -> None:
    """A backup that is no good is named as such, in one line, without the advice to restore a backup."""
    old, new, file = filled(make_store("sqlite")), make_store("sqlite"), tmp_path / "runs.backup"
    assert old.mlrs("backup", file).exit_code == 0
    data = bytearray(file.read_bytes())
    page = int.from_bytes(data[16:18], "big")
    match damage:
        case "noise":
            data[:] = b"\xa5" * 9000
        case "empty":
            data.clear()
        case "cut":
            del data[len(data) // 2 :]
        case "a page":
            data[-page:] = b"\xa5" * page
    file.write_bytes(data)
    if damage == "another database":
        file.unlink()
        with closing(sqlite3.connect(file)) as other:
            other.execute("CREATE TABLE things (x)")
    result = new.mlrs("restore", file)
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: the backup {file} ")
    assert result.output.count("\n") == 1
    assert "mlrs store" not in result.output
    assert "data folder" not in result.output
    assert not (new.folder / "mlrs.sqlite3").exists()


@pytest.mark.parametrize("command", ["check", "backup", "vacuum"])
def test_no_store_is_made_where_none_is(tmp_path: Path, command: str) -> None:
    """A folder without a store is named, and none is made in it."""
    arguments = [tmp_path / "runs.backup"] if command == "backup" else []
    result = StoreAddress(tmp_path / "data", None).mlrs(command, *arguments)
    assert result.exit_code == 1
    assert f"there is no store {tmp_path / 'data' / 'mlrs.sqlite3'}" in result.output
    assert not (tmp_path / "data" / "mlrs.sqlite3").exists()


def test_a_backup_can_be_read_by_anyone(stored: StoreAddress, tmp_path: Path) -> None:
    """It is one SQLite file with the runs, their records and the models as rows."""
    file = tmp_path / "runs.backup"
    assert stored.mlrs("backup", file).exit_code == 0
    with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as found:
        assert found.execute("SELECT run_id FROM runs ORDER BY run_id").fetchall() == [
            ("a",),
            ("b",),
            ("scheduled",),
        ]
        data = (stored.folder / "tiny.safetensors").read_bytes()
        named = "SELECT name, data FROM model_names JOIN models USING (digest)"
        assert found.execute(named).fetchall() == [("tiny", data)]
