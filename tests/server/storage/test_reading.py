"""Reading parts of records, and the events of runs, on every store there is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_server.domain.run_events import RecordedEvent, RunEvent, RunEventKind
from mlrs_server.domain.updates import AppliedUpdate, MetaUpdate
from mlrs_server.errors import Reason
from mlrs_server.ops.checking import check_whole
from mlrs_server.storage import SqlStore, StoredRun, open_store
from mlrs_server.storage.backups import back_up, restore
from mlrs_server.storage.chunks import CHUNK
from mlrs_server.storage.run_events import KEPT
from mlrs_server.storage.tables import observations, run_events
from tests.server.storage.stored import create, fill, got, new_run, same, snapshot_at, stretch, updates
from tests.server.support import raises


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    """Each of the stores, empty."""
    where: Path | str = tmp_path / "store"
    if request.param == "postgresql":
        where = request.getfixturevalue("postgres").new_database()
    with closing(open_store(where)) as opened:
        yield opened


# --------------------------------------------------------------------------------- records


def test_so_many_chunks_are_read(store: SqlStore) -> None:
    """With a bound, a read ends where the last of so many chunks does, wherever in a chunk it begins."""
    run = create(store, "a")
    fill(store, run, *range(3, 31, 3))
    assert same(store.read(run.key, 4, 20, most_chunks=2), stretch(4, 6 + 3))
    assert same(store.read(run.key, 4, 2, most_chunks=2), stretch(4, 6))
    assert same(store.read(run.key, 4, 3, most_chunks=2), stretch(4, 9))
    assert same(store.read(run.key, 4, 19, most_chunks=100), stretch(4, 24))
    assert len(store.read(run.key, 30, 20, most_chunks=1)) == 0


def test_many_steps_at_once_are_stored_in_chunks_of_a_bounded_size(store: SqlStore) -> None:
    """A flush of many steps of a run leaves several chunks, also when it is repeated with more of them."""
    run, other = create(store, "a"), create(store, "b")
    for end in (CHUNK + 3, 2 * CHUNK + 5):
        parts = [(one, 0, stretch(0, count), snapshot_at(count)) for one, count in ((other, 4), (run, end))]
        store.append([updates(parts)])
    with store.reading() as connection:
        found = sa.select(observations.c.first_step, observations.c.steps)
        rows = connection.execute(found.where(observations.c.run_key == run.key).order_by("first_step")).all()
    assert [tuple(row) for row in rows] == [(0, CHUNK), (CHUNK, CHUNK), (2 * CHUNK, 5)]
    assert same(store.read(run.key, 0, 10 * CHUNK), stretch(0, 2 * CHUNK + 5))
    assert same(store.read(other.key, 0, 10), stretch(0, 4))


def test_a_gap_before_what_is_read_is_found(store: SqlStore) -> None:
    """A missing chunk is an error wherever a read begins in it, and chunks after it do not hide it."""
    run = create(store, "a")
    fill(store, run, 5, 10, 15, 20)
    with store.transaction() as connection:
        connection.execute(observations.delete().where(observations.c.first_step == 5))
    assert same(store.read(run.key, 2, 3), stretch(2, 5))
    for first in (2, 5, 7):
        with raises(Reason.DAMAGED, match="breaks off at step"):
            store.read(run.key, first, 20)
    assert same(store.read(run.key, 12, 20), stretch(12, 20))


@settings(max_examples=30)
@given(
    ends=st.sets(st.integers(1, 60), min_size=1),
    wanted=st.sets(st.integers(0, 70), max_size=12),
)
def test_some_steps_are_picked(picking: SqlStore, ends: set[int], wanted: set[int]) -> None:
    """A few steps come as they were stored, in whichever chunks they are; those beyond the record do not."""
    run = create(picking, f"a{time.monotonic_ns()}")
    fill(picking, run, *sorted(ends))
    steps = np.array(sorted(wanted), np.int64)
    found = picking.pick(run.key, steps)
    whole = stretch(0, max(ends))
    there = steps < max(ends)
    np.testing.assert_array_equal(found.reasons != 0, there)
    np.testing.assert_array_equal(found.losses[there], whole.losses[steps[there]])
    np.testing.assert_array_equal(found.lrs[there], whole.lrs[steps[there]])


@pytest.fixture(scope="module")
def picking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    """A store for all examples of a property."""
    with closing(open_store(tmp_path_factory.mktemp("picking") / "store")) as opened:
        yield opened


def test_picking_reads_only_the_chunks_of_the_steps(store: SqlStore) -> None:
    """A damaged chunk hides its own steps only, and other runs are not read."""
    run, other = create(store, "a"), create(store, "b")
    fill(store, run, 10, 20, 30)
    fill(store, other, 10)
    with store.transaction() as connection:
        second = sa.and_(observations.c.run_key == run.key, observations.c.first_step == 10)
        connection.execute(observations.update().where(second).values(record=b"\0" * 40))
    assert store.pick(run.key, np.array([0, 9, 10, 19, 20, 29])).reasons.tolist() == [1, 1, 0, 0, 1, 1]
    assert len(store.pick(run.key, np.empty(0, np.int64))) == 0


def test_the_last_update_of_each_stretch_is_read(store: SqlStore) -> None:
    """Of stretches of equal width those with updates give their last; the end of the part counts."""
    run, other = create(store, "a"), create(store, "b")
    for one in (run, other):
        part = updates([(one, 0, stretch(0, 40), snapshot_at(40))])
        steps = (0, 1, 5, 6, 7, 8, 21, 31, 39)
        applied = [AppliedUpdate(0, one.key, update_of(step, one)) for step in steps]
        store.append([replace(part, applied=applied)])
    for width, first, end, wanted in (
        (8, 0, 40, [7, 8, 21, 31, 39]),
        (8, 8, 39, [8, 21, 31]),
        (16, 0, 40, [8, 31, 39]),
        (1, 4, 9, [5, 6, 7, 8]),
        (64, 0, 6, [5]),
        (8, 16, 16, []),
    ):
        found = store.last_updates_of(run.key, first, end, width)
        assert list(found) == [update_of(step, run) for step in wanted]


def update_of(step: int, run: StoredRun) -> MetaUpdate:
    """Return an update of a step, another one for each run."""
    return MetaUpdate(step, float(run.key), None, 1, 0.5, 0.25)


# ---------------------------------------------------------------------------------- events

RESUMED = RunEvent(kind=RunEventKind.RESUMED, step=4)
RESIZED = RunEvent(kind=RunEventKind.RESIZED, step=5, count=3)
REWOUND = RunEvent(kind=RunEventKind.REWOUND, step=2, from_step=5)


def fallback(step: int, count: int | None) -> RunEvent:
    """Return the event of steps that a fallback answered."""
    return RunEvent(kind=RunEventKind.FALLBACK, step=step, count=count)


def plain(events: Sequence[RecordedEvent]) -> list[RunEvent]:
    """Return events without their numbers and times."""
    return [
        RunEvent(kind=one.kind, step=one.step, from_step=one.from_step, count=one.count) for one in events
    ]


def test_events_are_recorded_with_what_they_are_of(store: SqlStore) -> None:
    """Each change of a run records its event, numbered within the run, in order."""
    run, other = create(store, "a"), create(store, "b")
    fill(store, run, 5)
    before = time.time()
    store.set_feeder([run, other], "f", [(run, RESUMED), (other, None)])
    store.resize(run, 3, RESIZED)
    store.rewind(got(store, "a"), snapshot_at(2), REWOUND)
    store.resize(other, 2, RESIZED)
    store.resize(other, 2)
    events = store.run_events(run.key, 0)
    assert plain(events) == [RESUMED, RESIZED, REWOUND]
    assert [event.number for event in events] == [1, 2, 3]
    assert before - 1 <= events[0].time <= events[-1].time <= time.time() + 1
    assert list(store.run_events(run.key, 1)) == list(events[1:])
    assert plain(store.run_events(other.key, 0)) == [RESIZED]


def test_a_fallback_that_is_told_again_is_one_event(store: SqlStore) -> None:
    """The event of steps that began where the newest fallback did becomes that one; others are new."""
    run = create(store, "a")
    told = [fallback(5, 2), fallback(5, 4), fallback(9, None), fallback(5, 3)]
    for event in (told[0], RESUMED, *told[1:]):
        store.add_events([(run, event)])
    assert plain(store.run_events(run.key, 0)) == [fallback(5, 4), RESUMED, fallback(9, None), fallback(5, 3)]


def test_the_newest_events_are_kept(store: SqlStore) -> None:
    """A run keeps so many events, and their numbers go on."""
    run, other = create(store, "a"), create(store, "b")
    store.add_events([(other, RESUMED)])
    store.add_events([(run, RESUMED)] * (KEPT + 2))
    events = store.run_events(run.key, 0)
    assert [event.number for event in events] == list(range(3, KEPT + 3))
    assert len(store.run_events(other.key, 0)) == 1


def test_events_go_with_their_run(store: SqlStore) -> None:
    """A deleted run, and one that is replaced, take their events along."""
    kept, *gone = runs = [create(store, name) for name in "abc"]
    store.add_events([(run, RESUMED) for run in runs])
    store.delete(gone[0])
    (again,) = store.create([new_run("c")], dropped=[gone[1]])
    assert [len(store.run_events(run.key, 0)) for run in (*runs, again)] == [1, 0, 0, 0]
    assert check_whole(store) == []
    with store.transaction() as connection:
        row = {"run_key": 99, "number": 1, "time": 1.0, "kind": 1, "step": 0}
        connection.execute(run_events.insert().values(row))
    assert check_whole(store) == ["1 events are of no run"]
    assert len(store.run_events(kept.key, 0)) == 1


def test_events_are_in_backups(store: SqlStore, tmp_path: Path) -> None:
    """A restored store has the events that the backup was made with."""
    run = create(store, "a")
    store.add_events([(run, RESIZED), (run, fallback(7, 2))])
    events = store.run_events(run.key, 0)
    back_up(store, tmp_path / "backup", lambda _count: None)
    store.add_events([(run, RESUMED)])
    restore(tmp_path / "backup", store, lambda _count: None, replace=True)
    assert list(store.run_events(run.key, 0)) == list(events)


def test_an_event_of_a_newer_version_says_so(store: SqlStore) -> None:
    """A kind that is not known is not taken for another."""
    run = create(store, "a")
    with store.transaction() as connection:
        row = {"run_key": run.key, "number": 1, "time": 1.0, "kind": 99, "step": 0}
        connection.execute(run_events.insert().values(row))
    with raises(Reason.STORE_NEWER, match="99"):
        store.run_events(run.key, 0)
