"""The contract of a store, held against every store there is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_core.config import FoundRate, Optimizer, RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.search import SearchSetup, TrialResult
from mlrs_server import failpoints
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.domain.searches import RecordedSearch
from mlrs_server.domain.updates import AppliedUpdate, MetaUpdate
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.storage import Observations, Recency, SqlStore, Store, StoredRun
from mlrs_server.storage.chunks import CHUNK
from mlrs_server.storage.sql import AT_ONCE
from mlrs_server.storage.tables import meta_updates, observations, searches
from tests.server.storage.stored import (
    CONFIG,
    Opener,
    create,
    facts,
    fill,
    got,
    new_run,
    same,
    snapshot_at,
    stretch,
    update,
    updates,
)
from tests.server.support import raises


def test_a_created_run_is_read_as_it_was(store: Store) -> None:
    """`get` returns what `create` returned, and `None` for an id that no run has."""
    run = create(store, "a")
    assert facts(got(store, "a")) == facts(run)
    assert run.config == CONFIG
    assert run.create_time == run.update_time
    assert store.get(["b"]) == {}


def test_runs_are_created_together(store: Store) -> None:
    """Many runs come back in their order, each under a key of its own, and are read by any of their ids."""
    before = create(store, "before")
    names = [f"run-{index}" for index in range(2 * AT_ONCE + 1)]
    created = store.create([new_run(name, RunConfig(horizon=1 + index)) for index, name in enumerate(names)])
    assert [run.run_id for run in created] == names
    assert len({before.key, *(run.key for run in created)}) == len(names) + 1
    found = store.get([*names, "nobody", "before"])
    assert set(found) == {*names, "before"}
    assert [facts(found[name]) for name in names] == [facts(run) for run in created]
    for run in created[::400]:
        fill(store, run, 2)
    assert got(store, names[400]).snapshot.next_step == 2
    assert got(store, names[401]).snapshot.next_step == 0


@pytest.mark.parametrize(
    ("names", "taken"),
    [(["c", "d", "b", "a"], "b"), (["c", "d", "c"], "c"), ([f"c{n}" for n in range(1200)] + ["a"], "a")],
    ids=["taken", "twice", "many"],
)
def test_runs_are_created_all_or_none(store: Store, names: list[str], taken: str) -> None:
    """An id that is taken, or there twice, is named, and no run is created; the store goes on."""
    for name in "ab":
        create(store, name)
    with raises(Reason.RUN_EXISTS, field="run_id", match=f"'{taken}' is taken"):
        store.create([new_run(name) for name in names])
    listed = store.list(prefix="", status=None, after="", limit=2000)
    assert [run.run_id for run in listed] == ["a", "b"]
    assert create(store, "c").key > listed[-1].key


def test_nothing_is_asked_of_no_runs(store: Store) -> None:
    """Creating, reading and finishing none of the runs is done at once."""
    run = create(store, "a")
    assert store.create([]) == []
    assert store.get([]) == {}
    store.finish([])
    assert facts(got(store, "a")) == facts(run)


def test_the_newest_updates_of_runs_are_read_together(store: SqlStore) -> None:
    """Each run's newest meta update is returned by its key; none, or a damaged one, is left out."""
    runs = store.create([new_run(f"run-{index}") for index in range(AT_ONCE + 3)])
    for end in (2, 4):
        for index, run in enumerate(runs[:-1:AT_ONCE]):
            applied = [
                AppliedUpdate(0, run.key, MetaUpdate(step, index + step, None, 1, 0.1, 0.0))
                for step in range(end)
            ]
            store.append([replace(update(run, end - 2, end), applied=applied)])
    newest = store.last_updates([run.key for run in runs])
    assert {key: one.alignment for key, one in newest.items()} == {runs[0].key: 3, runs[AT_ONCE].key: 4}
    assert store.last_updates([runs[1].key]) == store.last_updates([]) == {}
    with store.transaction() as connection:
        connection.execute(
            meta_updates.update().where(meta_updates.c.run_key == runs[0].key).values(record=b"?")
        )
    assert set(store.last_updates([run.key for run in runs])) == {runs[AT_ONCE].key}


def test_an_id_is_taken_once(store: Store) -> None:
    """A second run of an id is refused, and the first is as it was."""
    run = create(store, "a")
    with raises(Reason.RUN_EXISTS, field="run_id"):
        create(store, "a", RunConfig())
    assert facts(got(store, "a")) == facts(run)


def test_keys_never_come_back(store: Store) -> None:
    """The key of a deleted run is not given to a later one, which has no record of it."""
    first = create(store, "a")
    fill(store, first, 3)
    store.delete(first)
    second = create(store, "a")
    assert second.key > first.key
    assert len(store.read(second.key, 0, 10)) == 0
    assert len(store.read(first.key, 0, 10)) == 0


def test_runs_are_listed_by_id(store: Store) -> None:
    """A page begins beyond `after`, is ordered by bytes, and holds `limit` runs at most."""
    names = ["Z", "a", "a-b", "a.b", "a/b", "a:b", "a@b", "aa", "b"]
    for name in reversed(names):
        create(store, name)
    pages, after = [], ""
    while page := store.list(prefix="", status=None, after=after, limit=4):
        pages.append([run.run_id for run in page])
        after = pages[-1][-1]
    assert [name for page in pages for name in page] == sorted(names)
    assert [len(page) for page in pages] == [4, 4, 1]


def recent(store: Store, after: Recency, limit: int, **chosen: Any) -> Sequence[StoredRun]:
    """Return a page of runs by recency."""
    asked: dict[str, Any] = {"prefix": "", "status": None, **chosen}
    return store.list(after=after, limit=limit, **asked)


def following(after: Recency, page: Sequence[StoredRun]) -> Recency:
    """Return where a list by recency stands after a page."""
    newest = page[0].update_time if math.isinf(after.newest) else after.newest
    return Recency(newest, page[-1].update_time, page[-1].run_id)


def test_runs_are_listed_by_recency(store: Store) -> None:
    """Pages by recency hold each run once, the newest activity first, those of one time by descending id."""
    for name in "cab":
        create(store, name)
    fill(store, got(store, "c"), 2)
    store.create([new_run(name) for name in ("same-b", "same-a")])
    fill(store, got(store, "a"), 2)
    store.finish([got(store, "b")])
    for limit in (1, 2, 3, 9):
        listed, after = list[str](), Recency()
        while page := recent(store, after, limit):
            listed += [run.run_id for run in page]
            after = following(after, page)
        assert listed == ["a", "same-b", "same-a", "c", "b"]
    (finished,) = recent(store, Recency(), 9, status=RunStatus.FINISHED)
    assert finished.run_id == "b"
    assert [run.run_id for run in recent(store, Recency(), 9, prefix="same-")] == ["same-b", "same-a"]
    assert not recent(store, Recency(), 9, prefix="é")


@settings(max_examples=12)
@given(st.data())
def test_no_run_is_missed_while_runs_change(
    opener: Opener, tmp_path_factory: Any, data: st.DataObject
) -> None:
    """Pages by recency hold every run that is there throughout, whichever are created, moved or deleted.

    Whichever is not touched comes once, and so do pages by id hold all of them, once.
    """
    with closing(opener(tmp_path_factory.mktemp("property") / "store")) as store:
        names = [f"run-{index}" for index in range(data.draw(st.integers(1, 8)))]
        for name in names:
            create(store, name)
        limit = data.draw(st.integers(1, 3))
        listed, by_id, after, last = list[str](), list[str](), Recency(), ""
        ends, touched, deleted = dict.fromkeys(names, 0), set[str](), set[str]()
        page: Sequence[StoredRun] = ()
        ids = [""]
        for turn in range(40):  # enough for every list to end
            if not turn or len(page) == limit:
                page = recent(store, after, limit)
                listed += [run.run_id for run in page]
                after = following(after, page) if page else after
            if not turn or len(ids) == limit:
                ids = [run.run_id for run in store.list(prefix="", status=None, after=last, limit=limit)]
                by_id += ids
                last = ids[-1] if ids else last
            if len(page) < limit and len(ids) < limit:
                break
            for name in data.draw(st.lists(st.sampled_from([*names, "new"]), max_size=3)):
                touched.add(name)
                if name == "new" and name not in ends:
                    create(store, name)
                    ends[name] = 0
                elif name not in deleted and data.draw(st.integers(0, 4)):
                    ends[name] += 1
                    store.append([update(got(store, name), ends[name] - 1, ends[name])])
                elif name not in deleted:
                    store.delete(got(store, name))
                    deleted.add(name)
        else:
            pytest.fail("the list has no end")
        assert set(names) - deleted <= set(listed)
        assert all(listed.count(name) == 1 for name in set(names) - touched)
        assert sorted(set(by_id)) == by_id
        assert set(names) - deleted <= set(by_id)


@pytest.mark.parametrize("prefix", ["", "a", "a-", "a/b", "zz", "%", "_", "a\x00", "\U0010ffff", "é"])
def test_runs_are_listed_by_prefix(store: Store, prefix: str) -> None:
    """A prefix is taken literally: no letter of it is a pattern."""
    names = ["a", "a-b", "a-c", "a/b", "a/bc", "ab", "z"]
    for name in names:
        create(store, name)
    listed = [run.run_id for run in store.list(prefix=prefix, status=None, after="", limit=10)]
    assert listed == [name for name in names if name.startswith(prefix)]


def test_runs_are_listed_by_status(store: Store) -> None:
    """Runs of another status are left out."""
    for name in ("a", "b", "c"):
        create(store, name)
    store.finish([got(store, "b")])
    finished = store.list(prefix="", status=RunStatus.FINISHED, after="", limit=10)
    assert [run.run_id for run in finished] == ["b"]
    active = store.list(prefix="", status=RunStatus.ACTIVE, after="a", limit=10)
    assert [run.run_id for run in active] == ["c"]


def test_a_record_is_read_across_chunks(store: Store) -> None:
    """Any stretch is read, wherever its chunks begin and end."""
    run, other = create(store, "a"), create(store, "b")
    fill(store, run, 1, 4, 5, 9)
    fill(store, other, 2)
    for start in range(11):
        for limit in range(1, 12):
            expected = stretch(min(start, 9), min(start + limit, 9))
            assert same(store.read(run.key, start, limit), expected), (start, limit)


def test_steps_of_many_runs_are_recalled_together(store: Store) -> None:
    """Steps of any runs, in any order and number, are what `read` gives of each; others have no reason."""
    runs = [create(store, f"r{index}") for index in range(2 * AT_ONCE + 3)]
    for start, end in ((0, 1), (1, 4), (4, 6)):
        of_each = [(run, start, stretch(start, end), snapshot_at(end)) for run in runs]
        store.append([updates(of_each)])
    fill(store, create(store, "empty"))
    fill(store, long := create(store, "long"), 3, 3 + CHUNK, 5 + 3 * CHUNK)
    far = [0, 2, 3, CHUNK, CHUNK + 2, CHUNK + 3, 3 * CHUNK + 4, 3 * CHUNK + 5, 9 * CHUNK, 2**53]
    wanted = [(run.key, step) for run in runs for step in (5, 0, 3, 2, 6)]
    wanted += [(long.key, step) for step in far + far]
    wanted += [(got(store, "empty").key, 0), (2**40, 0)]
    wanted = [wanted[place] for place in np.random.default_rng(0).permutation(len(wanted))]
    keys, steps = np.array(wanted, np.int64).T
    found = store.recall(keys, steps)
    ends = {run.key: 6 for run in runs} | {long.key: 5 + 3 * CHUNK}
    there = steps < np.array([ends.get(int(key), 0) for key in keys])
    assert (found.reasons != 0).tolist() == there.tolist()
    assert found.losses[there].tolist() == (steps[there] + 0.5).tolist()
    assert found.lrs[there].tolist() == (steps[there] / 7).tolist()
    assert found.extras.positions.tolist() == np.flatnonzero(there & (steps % 4 == 3)).tolist()
    assert found.extras.values[:, 0].tolist() == steps[found.extras.positions].tolist()
    nothing = np.zeros(0, np.int64)
    assert len(store.recall(nothing, nothing)) == 0


def test_a_damaged_chunk_is_not_recalled(store: SqlStore) -> None:
    """Of a run with a damaged chunk its other steps are recalled, and those of other runs."""
    run, other = create(store, "a"), create(store, "b")
    for one in (run, other):
        fill(store, one, 2, 4)
    spoilt = observations.update().where(observations.c.run_key == run.key, observations.c.first_step == 2)
    with store.transaction() as connection:
        connection.execute(spoilt.values(record=b"\x00" * 38))
    keys, steps = np.repeat([run.key, other.key], 4), np.tile(np.arange(4), 2)
    assert store.recall(keys, steps).reasons.tolist() == [1, 1, 0, 0, 1, 1, 1, 1]


def test_an_append_moves_the_run(store: Store) -> None:
    """The run is stored as it is after its newest observation."""
    run = create(store, "a")
    fill(store, run, 3, 4)
    after = got(store, "a")
    assert after.snapshot.next_step == 4
    assert after.snapshot.state.tolist() == [4] * 5
    assert after.update_time >= run.update_time
    assert after.create_time == run.create_time


def test_an_append_is_all_or_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a transaction fails before it is committed, nothing of it is stored."""
    runs = create(store, "a"), create(store, "b")
    for run in runs:
        fill(store, run, 2)
    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "ARMED", failpoints.parse("store.commit=error"))
        with raises(Reason.STORE):
            store.append([update(run, 2, 5) for run in runs])
    assert [got(store, name).snapshot.next_step for name in "ab"] == [2, 2]
    assert [len(store.read(run.key, 0, 10)) for run in runs] == [2, 2]
    store.append([update(run, 2, 5) for run in runs])
    assert [got(store, name).snapshot.next_step for name in "ab"] == [5, 5]


def test_an_append_that_is_tried_again_is_stored_once(store: Store) -> None:
    """When nobody knows whether a commit went through, it comes again, with what came since."""
    run = create(store, "a")
    fill(store, run, 2)
    store.append([update(run, 2, 5)])
    store.append([update(run, 2, 5)])
    store.append([update(run, 2, 8)])
    assert got(store, "a").snapshot.next_step == 8
    assert same(store.read(run.key, 0, 10), stretch(0, 8))


def test_losses_that_are_not_finite_survive(store: Store) -> None:
    """NaNs of any payload, infinities and -0.0 come back bit for bit."""
    run = create(store, "a")
    odd = np.array([0x7FF8000000000001, 0xFFF8000000000002, 0x7FF0000000000000, 1 << 63], np.uint64)
    record = Observations(odd.view(np.float64), odd[::-1].view(np.float64).copy(), np.full(4, 3, np.uint8))
    store.append([updates([(run, 0, record, snapshot_at(4))])])
    assert same(store.read(run.key, 0, 4), record)


def test_a_config_is_completed(store: Store) -> None:
    """A completed config replaces the one before and leaves the rest alone."""
    run = create(store, "a", RunConfig(scale=0.5))
    completed = replace(run, config=CONFIG)
    store.complete(completed)
    assert facts(got(store, "a")) == facts(completed)


def test_runs_are_replaced(store: Store) -> None:
    """Runs are created in place of those dropped, of which nothing is left, under new keys; others stay."""
    old, other = create(store, "a"), create(store, "b")
    for run in (old, other):
        fill(store, run, 3)
    config = RunConfig(horizon=7)
    new, fresh = store.create([new_run("a", config), new_run("c", config)], [old])
    assert new.key > old.key
    assert {run_id: facts(run) for run_id, run in store.get(["a", "c"]).items()} == {
        "a": facts(new),
        "c": facts(fresh),
    }
    assert len(store.read(old.key, 0, 9)) == len(store.read(new.key, 0, 9)) == 0
    assert same(store.read(other.key, 0, 9), stretch(0, 3))


def test_runs_are_replaced_all_or_none(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is to be replaced stays where the new one, or another with it, cannot be created."""
    old, other = create(store, "a"), create(store, "b")
    fill(store, old, 3)
    with raises(Reason.RUN_EXISTS, match="'b' is taken"):
        store.create([new_run("a"), new_run("b")], [old])
    monkeypatch.setattr(failpoints, "ARMED", failpoints.parse("store.create=error"))
    with raises(Reason.STORE):
        store.create([new_run("a"), new_run("b")], [old, other])
    assert facts(got(store, "b")) == facts(other)
    assert got(store, "a").key == old.key
    assert same(store.read(old.key, 0, 9), stretch(0, 3))


def test_a_task_and_a_feeder_are_kept(store: Store) -> None:
    """A run is read with its task and its feeder, and its place with its feeder and status."""
    (run, other) = store.create(
        [replace(new_run(run_id), task="cifar10", feeder="first") for run_id in ("a", "b")]
    )
    assert (got(store, "a").task, got(store, "a").feeder) == ("cifar10", "first")
    store.set_feeder([run], "second")
    assert facts(got(store, "a")) == facts(replace(run, feeder="second"))
    assert facts(got(store, "b")) == facts(other)
    store.finish([run])
    found = store.find(["a", "b"])
    assert [found[name].feeder for name in "ab"] == ["second", "first"]
    assert [found[name].status for name in "ab"] == [RunStatus.FINISHED, RunStatus.ACTIVE]


def test_a_status_is_set(store: Store) -> None:
    """A status is kept, and overrides that of the last observation."""
    run = create(store, "a")
    fill(store, run, 2)
    store.finish([run])
    assert got(store, "a").snapshot.status == RunStatus.FINISHED
    assert got(store, "a").snapshot.next_step == 2


def test_a_status_is_set_of_many(store: Store) -> None:
    """Any number of runs get a status at once, and the others keep theirs."""
    created = store.create([new_run(f"run-{index:04}") for index in range(2 * AT_ONCE + 2)])
    store.finish(created[1:])
    active = store.list(prefix="", status=RunStatus.ACTIVE, after="", limit=9)
    assert [run.run_id for run in active] == ["run-0000"]


@pytest.mark.parametrize("step", range(10))
def test_a_run_is_rewound_to_any_step(store: Store, step: int) -> None:
    """The record from there on is dropped, chunks are cut, and the run goes on from there."""
    run, other = create(store, "a"), create(store, "b")
    fill(store, run, 1, 4, 5, 9)
    fill(store, other, 9)
    store.finish([run])
    store.rewind(run, snapshot_at(step))
    assert same(store.read(run.key, 0, 20), stretch(0, step))
    assert got(store, "a").snapshot.next_step == step
    assert got(store, "a").snapshot.status == RunStatus.ACTIVE
    store.append([update(run, step, 12)])
    assert same(store.read(run.key, 0, 20), stretch(0, 12))
    assert same(store.read(other.key, 0, 20), stretch(0, 9))


def test_a_deleted_run_is_gone(store: Store) -> None:
    """Neither the run nor its record is left, and other runs are untouched."""
    run, other = create(store, "a"), create(store, "b")
    fill(store, run, 4)
    fill(store, other, 4)
    store.delete(run)
    assert store.get(["a"]) == {}
    assert len(store.read(run.key, 0, 10)) == 0
    assert same(store.read(other.key, 0, 10), stretch(0, 4))


SEARCH = RecordedSearch(
    start="s", setup=SearchSetup(horizon=100, optimizer=Optimizer.ADAM), keep_policy=False, charge_steps=True
)
"""A search without trials."""
SETTLED = replace(
    new_run("a", replace(CONFIG, schedule=ScheduleSpec(ScheduleKind.WSD, warmup=5))),
    config=replace(CONFIG, found=FoundRate(learning_rate=0.1, octaves=1.5, steps=40, charged=True)),
    model_name="wsd",
    model_digest="e" * 64,
    snapshot=replace(snapshot_at(0), state=np.zeros(0, np.float32)),
)
"""What a run becomes at the end of its search."""


def with_losses(*losses: float) -> RecordedSearch:
    """Return a search with trials of these losses."""
    trials = (TrialResult(learning_rate=0.1 / 7**n, steps=8 - n, loss=loss) for n, loss in enumerate(losses))
    return replace(SEARCH, results=tuple(trials))


def newest(store: Store, run: StoredRun) -> tuple[int, str]:
    """Return the number of a run's newest search, and all of it: in its text NaN is NaN."""
    found = store.search(run.key)
    assert found is not None
    return found[0], repr(found[1])


def numbers(store: SqlStore) -> list[tuple[int, int]]:
    """Return the runs and the numbers of all searches that are stored."""
    query = sa.select(searches.c.run_key, searches.c.attempt).order_by(*searches.primary_key.columns)
    with store.reading() as connection:
        return [tuple(row) for row in connection.execute(query)]


def test_a_search_is_read_as_it_was(store: Store) -> None:
    """A search comes back with all of its trials, whatever their losses; a run may have none."""
    run, other = create(store, "a"), create(store, "b")
    assert store.search(run.key) is None
    losses = [1.0, math.nan, math.inf, -math.inf, -0.0, 1e308, 5e-324]
    for count in range(len(losses) + 1):
        search = with_losses(*losses[:count])
        for _ in range(2):  # when nobody knows whether a commit went through, it comes again
            store.put_search(run, 1, search)
        assert newest(store, run) == (1, repr(search))
    assert store.search(other.key) is None
    assert facts(got(store, "a")) == facts(run)


def test_the_newest_search_counts(store: SqlStore) -> None:
    """Of several searches the last begun is read, and those before stay in the store."""
    run, other = create(store, "a"), create(store, "b")
    for attempt in range(1, 12):
        store.put_search(run, attempt, replace(SEARCH, start=f"s-{attempt}"))
    store.put_search(other, 1, SEARCH)
    assert newest(store, run) == (11, repr(replace(SEARCH, start="s-11")))
    assert newest(store, other) == (1, repr(SEARCH))
    assert numbers(store) == [*((run.key, attempt) for attempt in range(1, 12)), (other.key, 1)]


def test_a_search_settles_its_run(store: Store) -> None:
    """At its end a search gives its run a config, a policy and a state, and changes nothing else of it."""
    settled = replace(SETTLED, shard=77, task="another", feeder="another", world_size=9)
    run, other = create(store, "a"), create(store, "b")
    for _ in range(2):
        store.put_search(run, 1, with_losses(1.0), settled)
    names = ("config", "model_name", "model_digest", "snapshot")
    changed = {name: getattr(SETTLED, name) for name in names}
    assert facts(got(store, "a")) == facts(replace(run, **changed))
    assert facts(got(store, "b")) == facts(other)
    assert newest(store, run) == (1, repr(with_losses(1.0)))


def test_a_search_is_settled_all_or_none(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the transaction fails, search and run are as they were; the same call may be made again."""
    run = create(store, "a")
    store.put_search(run, 1, with_losses(1.0))
    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "ARMED", failpoints.parse("store.search=error"))
        with raises(Reason.STORE):
            store.put_search(run, 1, with_losses(1.0, 2.0), SETTLED)
    assert facts(got(store, "a")) == facts(run)
    assert newest(store, run) == (1, repr(with_losses(1.0)))
    store.put_search(run, 1, with_losses(1.0, 2.0), SETTLED)
    assert got(store, "a").config == SETTLED.config
    assert newest(store, run) == (1, repr(with_losses(1.0, 2.0)))


def test_searches_go_with_their_run(store: SqlStore) -> None:
    """A deleted run, and one that is replaced, take all of their searches along; a rewound one keeps them."""
    runs = [create(store, name) for name in "abc"]
    for run in runs:
        store.put_search(run, 1, SEARCH)
        store.put_search(run, 2, with_losses(1.0))
        fill(store, run, 3)
    store.delete(runs[0])
    (new,) = store.create([new_run("b")], [runs[1]])
    store.rewind(runs[2], snapshot_at(0))
    assert numbers(store) == [(runs[2].key, 1), (runs[2].key, 2)]
    assert store.search(new.key) is store.search(runs[0].key) is None
    assert newest(store, runs[2]) == (2, repr(with_losses(1.0)))


def test_a_damaged_search_is_detected(store: SqlStore) -> None:
    """A search whose bytes have changed is an error that names its run; the run itself is read."""
    run, other = create(store, "a"), create(store, "b")
    for one in (run, other):
        store.put_search(one, 1, SEARCH)
    with store.transaction() as connection:
        connection.execute(searches.update().where(searches.c.run_key == run.key).values(record=b"\0" * 40))
    with raises(Reason.DAMAGED, match="damaged record of run 'a'"):
        store.search(run.key)
    assert facts(got(store, "a")) == facts(run)
    assert newest(store, other) == (1, repr(SEARCH))


@pytest.mark.parametrize("ends", [[3], [1, 4, 5, 9], [5000, 8191, 8192, 8193, 30_000], [*range(1, 120)]])
def test_chunks_are_merged(store: SqlStore, ends: list[int]) -> None:
    """A record of many chunks reads the same from a few, takes more, and is rewound to any step."""
    run, other = create(store, "a"), create(store, "b")
    fill(store, run, *ends)
    fill(store, other, 2, 3)
    before, step = facts(got(store, "a")), 0
    while (after := store.merge(run, step)) is not None:
        assert after > step
        step = after
    assert facts(got(store, "a")) == before
    assert len(chunks(store, run)) <= 1 + 2 * ends[-1] // CHUNK
    for first, limit in ((0, ends[-1]), (ends[-1] // 2, 3), (max(0, ends[-1] - 9000), 8500)):
        assert same(store.read(run.key, first, limit), stretch(first, min(ends[-1], first + limit)))
    store.append([update(run, ends[-1], ends[-1] + 4)])
    store.rewind(run, snapshot_at(ends[-1] // 2))
    assert same(store.read(run.key, 0, 40_000), stretch(0, ends[-1] // 2))
    assert chunks(store, other) == [(0, 2), (2, 1)]


def chunks(store: SqlStore, run: StoredRun) -> list[tuple[int, int]]:
    """Return the first step and the length of each of a run's chunks."""
    table = observations.c
    query = sa.select(table.first_step, table.steps).where(table.run_key == run.key)
    with store.reading() as connection:
        return [tuple(row) for row in connection.execute(query.order_by(table.first_step))]


def test_a_record_with_a_gap_is_not_merged(store: SqlStore) -> None:
    """Where a chunk is missing the others stay as they are, and the gap is named."""
    run = create(store, "a")
    fill(store, run, 1, 4, 5)
    with store.transaction() as connection:
        connection.execute(observations.delete().where(observations.c.first_step == 1))
    with raises(Reason.DAMAGED, match="run 'a' breaks off at step 1;"):
        store.merge(run)
    assert chunks(store, run) == [(0, 1), (4, 1)]


def test_runs_that_rest_are_found(store: SqlStore) -> None:
    """Runs with many chunks are found once they are finished or idle, by shard, until they are merged."""
    run, ended, small = create(store, "a"), create(store, "b"), create(store, "c")
    for one, ends in ((run, range(1, 5)), (ended, range(1, 6)), (small, range(1, 3))):
        fill(store, one, *ends)
    store.finish([ended, small])

    def found(**changed: Any) -> list[str]:
        asked = {"at_least": 4, "before": 0.0, "shards": None, "limit": 9, **changed}
        return [one.run_id for one in store.loose(**asked)]

    assert found() == ["b"]
    assert found(before=time.time() + 9) == ["a", "b"]
    assert found(before=time.time() + 9, limit=1) == ["a"]
    assert found(before=time.time() + 9, shards={run.shard}) == ["a"]
    assert found(shards=set()) == []
    store.merge(ended)
    assert found() == []


class OnlyShard:
    """Lets the runs of one shard be written."""

    def __init__(self, shard: int) -> None:
        self.shard = shard

    def check(self, connection: sa.Connection, shards: Collection[int]) -> None:
        """Raise if there is another."""
        assert connection.in_transaction()
        if set(shards) - {self.shard}:
            raise AdvisorError(Reason.NOT_OWNER, "another replica owns it")


def test_a_fence_stops_every_write(store: SqlStore) -> None:
    """Whatever writes asks the fence first, about the shards of all its runs; a no changes nothing."""
    mine, other = create(store, "mine"), create(store, "other")
    assert mine.shard != other.shard
    fill(store, mine, 2)
    fill(store, other, 2)
    before = facts(got(store, "mine")), facts(got(store, "other"))
    store.fence = OnlyShard(mine.shard)
    writes: list[Callable[[], Any]] = [
        lambda: store.create([new_run("other too")]),
        lambda: store.append([update(mine, 2, 4), update(other, 2, 4)]),
        lambda: store.append([updates([(run, 2, stretch(2, 4), snapshot_at(4)) for run in (mine, other)])]),
        lambda: store.complete(replace(other, config=CONFIG)),
        lambda: store.create([replace(new_run("other"), shard=mine.shard)], [other]),
        lambda: store.set_feeder([mine, other], "feeder"),
        lambda: store.finish([mine, other]),
        lambda: store.rewind(other, snapshot_at(1)),
        lambda: store.merge(other),
        lambda: store.put_search(other, 1, SEARCH),
        lambda: store.put_search(other, 1, SEARCH, SETTLED),
        lambda: store.delete(other),
    ]
    for write in writes:
        with raises(Reason.NOT_OWNER):
            write()
    assert (facts(got(store, "mine")), facts(got(store, "other"))) == before
    assert chunks(store, other) == [(0, 2)]
    assert store.get(["other too"]) == {}
    assert store.search(other.key) is None
    store.put_search(mine, 1, SEARCH)
    store.append([update(mine, 2, 4)])
    assert got(store, "mine").snapshot.next_step == 4


def test_everything_survives_closing(opener: Opener, tmp_path: Path) -> None:
    """A store opened again holds what it held."""
    store = opener(tmp_path / "again")
    run = create(store, "a")
    fill(store, run, 2, 5)
    store.put_search(run, 3, SEARCH)
    before = facts(got(store, "a"))
    store.close()
    store = opener(tmp_path / "again")
    assert facts(got(store, "a")) == before
    assert newest(store, run) == (3, repr(SEARCH))
    assert same(store.read(run.key, 0, 10), stretch(0, 5))
    store.close()


@settings(max_examples=30)
@given(st.data())
def test_a_store_is_a_dictionary(opener: Opener, tmp_path_factory: Any, data: st.DataObject) -> None:
    """After any calls a store holds what a dictionary of lists would."""
    with closing(opener(tmp_path_factory.mktemp("property") / "store")) as store:
        keys: dict[str, int] = {}
        records: dict[str, int] = {}
        for _ in range(data.draw(st.integers(1, 15))):
            name = data.draw(st.sampled_from("abc"))
            if name not in keys:
                keys[name], records[name] = create(store, name).key, 0
                continue
            run, at = got(store, name), records[name]
            match data.draw(st.sampled_from(["append", "append", "append", "rewind", "replace", "delete"])):
                case "append":
                    records[name] = at + data.draw(st.integers(1, 6))
                    store.append([update(run, at, records[name])])
                case "rewind":
                    records[name] = data.draw(st.integers(0, at))
                    store.rewind(run, snapshot_at(records[name]))
                case "replace":
                    (new,) = store.create([new_run(name)], [run])
                    keys[name], records[name] = new.key, 0
                case _:
                    store.delete(run)
                    del keys[name], records[name]
        assert {
            run.run_id: run.snapshot.next_step
            for run in store.list(prefix="", status=None, after="", limit=9)
        } == records
        for name, steps in records.items():
            assert same(store.read(keys[name], 0, 1000), stretch(0, steps))
