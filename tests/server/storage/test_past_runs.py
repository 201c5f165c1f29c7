"""What a store remembers of the runs of tasks, on every store there is."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from mlrs_core.config import Measure, Optimizer, Recalled
from mlrs_core.memory import Ending, PastRun
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.storage import NewRun, RememberedTask, SqlStore, StoredRun, open_store
from mlrs_server.storage.backups import back_up, restore
from mlrs_server.storage.factory import dialect_of
from mlrs_server.storage.migrations.upgrade import configured
from mlrs_server.storage.past_runs import GOING, KEPT, pack, unpack
from mlrs_server.storage.sealing import is_sealed, seal
from mlrs_server.storage.tables import past_runs
from mlrs_server.tenancy import bare, full_name
from tests.server.storage.stored import CONFIG, facts, fill, got, new_run, snapshot_at
from tests.server.support import raises

Where = Path | str
RECALLED = Recalled(why="because", decided=True, measure=Measure.METRIC, expected_low=0.25)
TAKES_PART = replace(CONFIG, recalled=RECALLED)
ENGINES = ["sqlite", "postgresql"]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, str], Where]:
    """Return a function that names the store of an engine and a name, always the same one."""
    urls = defaultdict[str, str](lambda: request.getfixturevalue("postgres").new_database())
    return lambda engine, name: tmp_path / name if engine == "sqlite" else urls[name]


@pytest.fixture(params=ENGINES)
def where(request: pytest.FixtureRequest, place: Callable[[str, str], Where]) -> Where:
    """A store of each engine."""
    return place(request.param, "store")


@pytest.fixture
def store(where: Where) -> Iterator[SqlStore]:
    """That store, open and empty."""
    opened = open_store(where)
    yield opened
    opened.close()


def taking_part(run_id: str, task: str = "task") -> NewRun:
    """Return a run to create that takes part in the memory of its task."""
    return replace(new_run(run_id, TAKES_PART), task=task)


def create(store: SqlStore, run_id: str, task: str = "task") -> StoredRun:
    """Store a run that takes part in the memory of its task."""
    (run,) = store.create([taking_part(run_id, task)])
    return run


def past(run: StoredRun, **values: Any) -> PastRun:
    """Return how a run ended."""
    known: dict[str, Any] = {
        "run_id": bare(run.run_id),
        "ending": Ending.REACHED,
        "policy": "wsd",
        "learning_rate": 0.1,
        "searched": True,
        "optimizer": Optimizer.ADAM,
        "horizon": 100,
        "batch_size": 8,
        "metric": 0.5,
        "higher_is_better": True,
        "training_loss": 1.5,
        "recalled": RECALLED,
        "time": 7.0,
        **values,
    }
    return PastRun(**known)


def finish(store: SqlStore, run: StoredRun, **values: Any) -> PastRun:
    """Finish a run; return how it ended."""
    made = past(run, **values)
    store.finish([run], [(run, made)])
    return made


def ids(found: Sequence[PastRun | StoredRun]) -> list[str]:
    """Return the ids of runs."""
    return [run.run_id for run in found]


def rows(store: SqlStore) -> list[Any]:
    """Return all that is remembered, as it is stored."""
    with store.reading() as connection:
        return list(connection.execute(sa.select(past_runs).order_by(past_runs.c.run_key)))


# ------------------------------------------------------------------------------ beginning, ending


def test_a_run_is_noted_as_it_is_created(store: SqlStore) -> None:
    """A run that takes part in the memory comes back as it is stored; one that does not is unknown to it."""
    run = create(store, "a")
    store.create([replace(new_run("b"), task="task")])
    fill(store, run, 3)
    (found,) = store.past_runs("task", 9)
    assert isinstance(found, StoredRun)
    assert facts(found) == facts(got(store, "a"))
    assert found.config.recalled == RECALLED
    assert store.past_run(run) is None
    assert store.task("task") == RememberedTask("task", 1, run.create_time)


def test_a_completed_config_makes_no_note(store: SqlStore) -> None:
    """A run takes part from its creation on or not at all, and one that was forgotten stays forgotten."""
    run, other = create(store, "a"), create(store, "b", "forgotten")
    store.forget("forgotten")
    for one in (run, other):
        store.complete(replace(one, config=replace(TAKES_PART, num_classes=10)))
    assert ids(store.past_runs("task", 9)) == ["a"]
    assert store.past_runs("forgotten", 9) == []


def test_a_run_without_a_task_is_one_of_its_id(store: SqlStore) -> None:
    """A run whose task was never named is remembered under its own id."""
    create(store, "a", task="")
    assert [task.name for task in store.tasks("", after="", limit=9)] == ["a"]


def test_a_run_is_finished_with_how_it_ended(store: SqlStore) -> None:
    """Finishing stores the status and how the run ended; both are read as they were."""
    run, other = create(store, "a"), create(store, "b")
    ended = finish(store, run)
    assert store.past_run(run) == ended
    assert store.past_run(other) is None
    newest, oldest = store.past_runs("task", 9)
    assert (newest.run_id, oldest) == ("b", ended)
    assert got(store, "a").snapshot.status == RunStatus.FINISHED
    assert got(store, "b").snapshot.status == RunStatus.ACTIVE


class Closed:
    """A fence that lets nothing through."""

    def check(self, *_: object) -> None:
        """Refuse."""
        raise AdvisorError(Reason.NOT_OWNER, "no")


@pytest.mark.parametrize("fault", ["a record", "the fence"])
def test_finishing_is_all_or_nothing(store: SqlStore, fault: str) -> None:
    """If it fails, no run is finished, and of none it is remembered how it ended."""
    runs = create(store, "a"), create(store, "b")
    ended = [(run, past(run)) for run in runs]
    if fault == "the fence":
        store.fence = Closed()
        with raises(Reason.NOT_OWNER):
            store.finish(list(runs), ended)
    else:
        ended[1] = (runs[1], replace(ended[1][1], time=10**400))  # no column takes it
        with pytest.raises(Exception, match=r"too large|out of range|overflow"):
            store.finish(list(runs), ended)
    assert [got(store, name).snapshot.status for name in "ab"] == [RunStatus.ACTIVE] * 2
    assert [store.past_run(run) for run in runs] == [None, None]


def test_finishing_again_replaces(store: SqlStore) -> None:
    """A run that is rewound and finished again, or gets a late metric, is remembered once, as it is then."""
    run = create(store, "a")
    fill(store, run, 5)
    finish(store, run)
    store.rewind(got(store, "a"), snapshot_at(2))
    assert store.past_run(run) is None
    assert [type(one) for one in store.past_runs("task", 9)] == [StoredRun]
    again = finish(store, run, metric=0.75, time=9.0)
    assert store.past_runs("task", 9) == [again]
    late = replace(again, metric=0.875)
    store.finish([], [(run, late)])
    assert store.past_runs("task", 9) == [late]
    assert store.task("task") == RememberedTask("task", 1, 9.0)


def test_the_newest_runs_come_first(store: SqlStore) -> None:
    """Runs come in the reverse order of their creation, at most so many of those that ended."""
    runs = [create(store, name) for name in "abcd"]
    for run in (runs[2], runs[0]):
        finish(store, run)
    assert ids(store.past_runs("task", 9)) == ["d", "c", "b", "a"]
    assert ids(store.past_runs("task", 1)) == ["d", "c", "b"]
    assert store.past_runs("other", 9) == []


@pytest.mark.parametrize(
    ("optimizer", "ending", "families"),
    [
        (Optimizer.ADAM, Ending.REACHED, ["adam"]),
        (Optimizer.ADAMW, Ending.DIVERGED, ["adam"]),
        (Optimizer.NESTEROV, Ending.REACHED, ["sgd"]),
        (Optimizer.UNSPECIFIED, Ending.REACHED, ["unspecified"]),
        (Optimizer.ADAM, Ending.STOPPED, []),
    ],
)
def test_runs_are_found_by_the_kind_of_their_optimizer(
    store: SqlStore, optimizer: Optimizer, ending: Ending, families: list[str]
) -> None:
    """Of those that ended, only runs that say something about a kind are found by it; all under way are."""
    finish(store, create(store, "a"), optimizer=optimizer, ending=ending)
    create(store, "going")
    for family in ("adam", "sgd", "unspecified", "other"):
        wanted = ["going", "a"] if family in families else ["going"]
        assert ids(store.past_runs("task", 9, family)) == wanted
    assert ids(store.past_runs("task", 9)) == ["going", "a"]


def test_only_the_newest_runs_of_a_task_are_kept(store: SqlStore) -> None:
    """Beyond a number of runs that ended, the oldest are forgotten; those under way, and others, stay."""
    other, going = create(store, "other", "another"), create(store, "going")
    finish(store, other)
    names = [f"run-{index:03}" for index in range(KEPT + 3)]
    runs = store.create([taking_part(name) for name in names])
    store.finish(runs, [(run, past(run)) for run in runs])
    assert ids(store.past_runs("task", 999)) == [*names[:2:-1], "going"]
    finish(store, going)  # the oldest of all
    assert store.task("task") == RememberedTask("task", KEPT, 7.0)
    assert ids(store.past_runs("another", 9)) == ["other"]


def test_the_newest_runs_under_way_are_read(store: SqlStore) -> None:
    """Of runs that have not ended, the newest are read, beside those that have."""
    finish(store, create(store, "done"))
    names = [f"run-{index:03}" for index in range(GOING + 2)]
    store.create([taking_part(name) for name in names])
    assert ids(store.past_runs("task", 1)) == [*names[:1:-1], "done"]


def test_silent_runs_are_found(store: SqlStore) -> None:
    """Runs under way that were not observed since a time are found, the least recent first."""
    done, first, second = (create(store, name) for name in ("done", "first", "second"))
    store.create([new_run("takes no part")])
    finish(store, done)
    fill(store, first, 3)

    def found(before: float, shards: list[int] | None = None, limit: int = 9) -> list[str]:
        return ids(store.silent(before=before, shards=shards, limit=limit))

    now = got(store, "first").update_time + 1.0
    assert found(now) == ["second", "first"]
    assert found(now, limit=1) == ["second"]
    assert found(now, [first.shard]) == ["first"]
    assert found(now, []) == []
    assert found(first.create_time) == []
    finish(store, second, ending=Ending.STOPPED)
    assert found(now) == ["first"]


# ------------------------------------------------------------------------- deleting, forgetting


def test_deleting_a_run_forgets_it_if_it_has_not_ended(store: SqlStore) -> None:
    """How a run ended outlives the run; a run that is deleted under way leaves nothing."""
    done, going = create(store, "done"), create(store, "going")
    ended = finish(store, done)
    reached = create(store, "reached")
    store.delete(done)
    store.delete(going)
    store.delete(reached, past(reached))
    assert store.get(["done", "going", "reached"]) == {}
    assert store.past_runs("task", 9) == [past(reached), ended]
    assert store.past_run(done) == ended
    assert len(rows(store)) == 2


def test_a_run_that_is_replaced_leaves_how_it_ended(store: SqlStore) -> None:
    """A new run takes the place of one under way in the memory, too, and not that of a finished one."""
    going, done = create(store, "going"), create(store, "done")
    ended = finish(store, done)
    new = store.create([taking_part("going"), taking_part("done")], [going, done])
    found = store.past_runs("task", 9)
    assert ids(found) == ["done", "going", "done"]
    assert found[2] == ended
    assert [run.key for run in found[:2] if isinstance(run, StoredRun)] == [new[1].key, new[0].key]
    (again,) = store.create([taking_part("going")], [new[0]], [(new[0], past(new[0]))])
    assert ids(store.past_runs("task", 9)) == ["going", "done", "going", "done"]
    assert store.past_run(new[0]) == past(new[0])
    assert store.past_run(again) is None


def test_forgetting_a_task_forgets_all_of_it(store: SqlStore) -> None:
    """All runs of a task are forgotten, also those under way, for good; the runs and other tasks stay."""
    done, going, other = create(store, "done"), create(store, "going"), create(store, "other", "another")
    finish(store, done)
    assert store.forget("task") == 2
    assert store.past_runs("task", 9) == []
    assert store.task("task") is None
    assert store.forget("task") == 0
    assert set(store.get(["done", "going"])) == {"done", "going"}
    assert ids(store.past_runs("another", 9)) == [other.run_id]
    finish(store, going)
    finish(store, done)
    assert store.past_runs("task", 9) == []
    assert store.past_run(going) is None
    create(store, "new")
    assert ids(store.past_runs("task", 9)) == ["new"]


# ----------------------------------------------------------------------------------- tenants


def test_tasks_are_of_one_tenant(store: SqlStore) -> None:
    """Each tenant has its own tasks, by name, whatever the others call theirs; none sees another's."""
    tenants, names = ("", "a", "a-b", "ab"), ("Z", "a", "a+", "b")
    for tenant in tenants:
        for name in names:
            create(store, full_name(tenant, f"run-of-{name}"), name)
        ended = create(store, full_name(tenant, "ended"), "b")
        finish(store, ended, run_id=f"of {tenant}")
    for tenant in tenants:
        pages, after = list[RememberedTask](), ""
        while page := store.tasks(tenant, after=after, limit=3):
            pages += page
            after = page[-1].name
        assert [(task.name, task.runs) for task in pages] == [("Z", 1), ("a", 1), ("a+", 1), ("b", 2)]
        assert pages[3] == store.task(full_name(tenant, "b"))
        assert store.past_runs(full_name(tenant, "b"), 1)[0].run_id == f"of {tenant}"
    assert store.forget(full_name("a", "b")) == 2
    assert [task.name for task in store.tasks("a", after="", limit=9)] == ["Z", "a", "a+"]
    for tenant in ("", "a-b", "ab"):
        assert len(store.past_runs(full_name(tenant, "b"), 9)) == 2


def test_a_task_is_as_new_as_its_newest_run(store: SqlStore) -> None:
    """The time of a task is when the last of its runs was created, or ended."""
    run = create(store, "a")
    assert store.task("task") == RememberedTask("task", 1, run.create_time)
    finish(store, run, time=run.create_time + 5)
    later = create(store, "b")
    assert store.task("task") == RememberedTask("task", 2, max(run.create_time + 5, later.create_time))


# ---------------------------------------------------------------------------- damage, versions


def _changed(**changed: Any) -> bytes:
    """Return a record of another version."""
    values = json.loads(json.dumps(vars(past(create_only())), default=vars))
    return seal(json.dumps({**values, **changed}).encode())


def create_only() -> StoredRun:
    """Return a stored run of no store."""
    return StoredRun(**vars(taking_part("a")), key=1, create_time=1.0, update_time=1.0)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"damage",
        seal(b""),
        seal(b"[]"),
        seal(b"{}"),
        seal(b"\xff"),
        seal(b"[" * 100_000),
        pack(past(create_only()))[:-1],
        _changed(newer=1),
        _changed(ending=77),
        _changed(optimizer=77),
        _changed(recalled={"measure": 77, "why": ""}),
        _changed(recalled=[]),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_left_out(store: SqlStore, record: bytes) -> None:
    """A run whose record is damaged, or of a newer version, is left out with a warning, and no other is."""
    runs = [create(store, name) for name in "abc"]
    ended = [finish(store, run) for run in runs]
    with store.transaction() as connection:
        connection.execute(past_runs.update().where(past_runs.c.run_key == runs[1].key).values(record=record))
    with capture_logs() as logs:
        assert store.past_runs("task", 9) == [ended[2], ended[0]]
    assert [(line["event"], line["log_level"], line["of"]) for line in logs] == [
        ("past_run_unreadable", "warning", "task")
    ]
    if is_sealed(record):
        with raises(Reason.STORE_NEWER, match="'b'"):
            store.past_run(runs[1])
    else:
        assert store.past_run(runs[1]) is None
    again = finish(store, runs[1], metric=0.25)
    assert store.past_runs("task", 9) == [ended[2], again, ended[0]]


def test_a_damaged_run_under_way_is_left_out(store: SqlStore) -> None:
    """A run under way whose row cannot be read is left out with a warning."""
    create(store, "a")
    create(store, "b")
    with store.transaction() as connection:
        connection.execute(sa.text("UPDATE runs SET config = snapshot WHERE run_id = 'a'"))
    with capture_logs() as logs:
        assert ids(store.past_runs("task", 9)) == ["b"]
    assert [line["event"] for line in logs] == ["past_run_unreadable"]


def test_a_run_that_an_older_daemon_deleted_is_left_out(store: SqlStore) -> None:
    """A daemon without memory that deletes a run under way leaves its note behind, which counts for none."""
    run = create(store, "a")
    with store.transaction() as connection:
        connection.execute(sa.text("DELETE FROM runs"))
    assert run.key == rows(store)[0].run_key
    assert store.past_runs("task", 9) == []


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.builds(
        PastRun,
        run_id=st.just("a"),
        ending=st.sampled_from(Ending),
        policy=st.text(),
        learning_rate=st.none() | NUMBERS,
        lr_offset=NUMBERS,
        searched=st.booleans(),
        optimizer=st.sampled_from(Optimizer),
        momentum=st.none() | NUMBERS,
        horizon=st.integers(1, 2**53),
        batch_size=st.none() | st.integers(1, 2**53),
        metric=st.none() | NUMBERS,
        higher_is_better=st.booleans(),
        validation_loss=st.none() | NUMBERS,
        training_loss=st.none() | NUMBERS,
        recalled=st.none()
        | st.builds(
            Recalled,
            why=st.text(),
            decided=st.booleans(),
            measure=st.sampled_from(Measure),
            expected_low=st.none() | NUMBERS,
            expected_high=st.none() | NUMBERS,
        ),
        time=NUMBERS,
    )
)
def test_a_past_run_is_read_as_it_was(run: PastRun) -> None:
    """Any past run comes back from its bytes, to the bit."""
    assert repr(unpack(pack(run), "a")) == repr(run)


# ------------------------------------------------------------------------- migration, backups


def test_everything_survives_closing(where: Where) -> None:
    """A store opened again remembers what it remembered."""
    with closing(open_store(where)) as store:
        done, _ = create(store, "a"), create(store, "b")
        ended = finish(store, done)
    with closing(open_store(where)) as store:
        newest, oldest = store.past_runs("task", 9)
        assert (newest.run_id, oldest) == ("b", ended)


def test_a_store_without_a_memory_gets_one(where: Where) -> None:
    """A store of the revision before the memory is brought up to date, and remembers from then on."""
    engine = dialect_of(where).engine()
    with engine.begin() as connection:
        command.upgrade(configured(connection), "0011")
        assert not sa.inspect(connection).has_table("past_runs")
    engine.dispose()
    with closing(open_store(where)) as store:
        (old,) = store.create([replace(new_run("old"), task="task")])
        store.finish([old], [(old, past(old))])
        assert store.past_runs("task", 9) == []
        assert store.tasks("", after="", limit=9) == []
        ended = finish(store, create(store, "a"))
        assert store.past_runs("task", 9) == [ended]


@pytest.mark.parametrize("source", ENGINES)
@pytest.mark.parametrize("target", ENGINES)
def test_a_backup_has_the_memory(
    place: Callable[[str, str], Where], tmp_path: Path, source: str, target: str
) -> None:
    """What is remembered comes back to the bit, also of runs that are gone, on either engine."""
    with closing(open_store(place(source, "old"))) as old, closing(open_store(place(target, "new"))) as new:
        gone, done, _ = (create(old, name) for name in ("gone", "done", "going"))
        for run in (gone, done):
            finish(old, run)
        old.delete(gone)
        back_up(old, tmp_path / "backup", lambda _: None)
        restore(tmp_path / "backup", new, lambda _: None, replace=False)
        assert rows(new) == rows(old)
        assert ids(new.past_runs("task", 9)) == ["going", "done", "gone"]
        assert facts(got(new, "going")) == facts(got(old, "going"))


@pytest.mark.parametrize("target", ENGINES)
def test_a_key_of_a_run_that_is_gone_is_not_given_again(
    place: Callable[[str, str], Where], tmp_path: Path, target: str
) -> None:
    """A run created in a restored store is another one than the newest remembered, which was deleted."""
    with closing(open_store(place("sqlite", "old"))) as old, closing(open_store(place(target, "new"))) as new:
        _, gone = create(old, "first"), create(old, "gone")
        ended = finish(old, gone)
        old.delete(gone)
        back_up(old, tmp_path / "backup", lambda _: None)
        restore(tmp_path / "backup", new, lambda _: None, replace=False)
        create(new, "next")
        found = new.past_runs("task", 9)
        assert ids(found) == ["next", "gone", "first"]
        assert found[1] == ended
