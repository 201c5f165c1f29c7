"""Tags and notes of runs, on every store there is."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace

import pytest
import sqlalchemy as sa

from mlrs_server import failpoints
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.domain.notes import MAX_NOTE, MAX_TAGS, MAX_VALUE, NoteChange
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.storage import Creation, Recency, RunTraits, SqlStore, open_store
from mlrs_server.storage.tables import run_tags, runs
from tests.server.storage.stored import create, facts, fill, got, new_run, snapshot_at
from tests.server.support import raises
from tests.support.postgres import PostgresServer

FULL = {f"t/{index:02}": f"{index}" for index in range(MAX_TAGS)}
"""As many tags as a run may have."""


def noted(store: SqlStore, run_id: str, **change: object) -> tuple[dict[str, str], str]:
    """Change a run's tags and note; return what it has then."""
    store.change_notes(run_id, NoteChange(**change))  # type: ignore[arg-type]  # of the right types
    return dict(got(store, run_id).tags), got(store, run_id).note


def orphans(store: SqlStore) -> int:
    """Return the number of tags that are of no run."""
    lost = run_tags.c.run_key.not_in(sa.select(runs.c.key))
    with store.reading() as connection:
        return int(connection.execute(sa.select(sa.func.count()).where(lost)).scalar_one())


def test_tags_and_notes_of_new_runs_are_kept(store: SqlStore) -> None:
    """New runs are read, one by one and in lists, with the tags and notes that they were created with."""
    texts = {"a": "\N{SNOWMAN} <b>[red]é", "b.c/d-e_f": "", "z": "v" * MAX_VALUE}
    noted = replace(new_run("a"), tags=texts, note="two\nlines\t\N{PILE OF POO}")
    full = replace(new_run("b"), tags=FULL, note="n" * MAX_NOTE)
    created = store.create([noted, full, new_run("c")])
    for run in created:
        assert facts(got(store, run.run_id)) == facts(run)
    for after in ("", Recency(), Creation()):
        listed = store.list(prefix="", status=None, after=after, limit=9)
        assert {run.run_id: facts(run) for run in listed} == {run.run_id: facts(run) for run in created}
    assert (created[0].tags, created[1].tags, created[2].tags) == (texts, FULL, {})


def test_tags_are_set_and_removed_one_by_one(store: SqlStore) -> None:
    """A change touches what it names, and no other tag, run or note; repeated, it changes nothing."""
    create(store, "other")
    create(store, "a")
    assert noted(store, "a", set_tags={"x": "1", "y": "2"}, note="first") == ({"x": "1", "y": "2"}, "first")
    assert noted(store, "a", set_tags={"y": "3", "z": ""}) == ({"x": "1", "y": "3", "z": ""}, "first")
    for _ in range(2):
        assert noted(store, "a", remove_tags=["x", "none"]) == ({"y": "3", "z": ""}, "first")
    assert noted(store, "a", note="") == ({"y": "3", "z": ""}, "")
    assert noted(store, "a") == ({"y": "3", "z": ""}, "")
    assert (got(store, "other").tags, got(store, "other").note) == ({}, "")
    with raises(Reason.RUN_NOT_FOUND, field="run_id"):
        store.change_notes("nobody", NoteChange(set_tags={"x": "1"}))
    assert orphans(store) == 0


def test_a_run_has_a_limited_number_of_tags(store: SqlStore) -> None:
    """A change that would give a run too many tags changes nothing; tags removed by it do not count."""
    create(store, "a")
    assert noted(store, "a", set_tags=FULL, note="kept") == (FULL, "kept")
    with raises(Reason.INVALID_FIELD, field="set_tags", match="at most 32 tags, this one would have 33"):
        store.change_notes("a", NoteChange(set_tags={"new": "1"}, note="lost"))
    assert noted(store, "a", set_tags={"t/00": "changed"}) == (FULL | {"t/00": "changed"}, "kept")
    tags, _ = noted(store, "a", set_tags={"new": "1"}, remove_tags=["t/00"])
    assert len(tags) == MAX_TAGS
    assert tags["new"] == "1"


def test_tags_and_notes_go_with_their_run(store: SqlStore) -> None:
    """A deleted or replaced run leaves no tag; a later run of its id has none of it."""
    for name in "ab":
        store.create([replace(new_run(name), tags=FULL, note="gone")])
    store.delete(got(store, "a"))
    store.create([replace(new_run("b"), tags={"fresh": "1"})], [got(store, "b")])
    assert (create(store, "a").tags, got(store, "a").note, got(store, "a").tags) == ({}, "", {})
    assert (got(store, "b").tags, got(store, "b").note) == ({"fresh": "1"}, "")
    assert orphans(store) == 0


def test_no_other_write_touches_tags_and_notes(store: SqlStore) -> None:
    """What is written of a run that was read before its tags changed leaves the tags and the note alone."""
    before = create(store, "a")
    kept = noted(store, "a", set_tags={"x": "1"}, note="kept")
    fill(store, before, 3)
    store.set_feeder([before], "feeder")
    store.resize(before, 2)
    store.complete(before)
    store.finish([before])
    store.rewind(before, snapshot_at(1))
    store.merge(before)
    run = got(store, "a")
    assert (run.tags, run.note) == kept
    assert (run.snapshot.next_step, run.snapshot.status, run.feeder) == (1, RunStatus.ACTIVE, "feeder")
    assert run.update_time > before.update_time


def test_a_change_is_whole_or_not_at_all(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that fails before it is committed leaves all tags and the note as they were."""
    create(store, "a")
    kept = noted(store, "a", set_tags={"x": "1", "y": "2"}, note="kept")
    monkeypatch.setattr(failpoints, "ARMED", failpoints.parse("store.notes=error"))
    with raises(Reason.STORE):
        store.change_notes("a", NoteChange(set_tags={"x": "9"}, remove_tags=["y"], note="lost"))
    assert (got(store, "a").tags, got(store, "a").note) == kept


def test_damaged_tags_and_notes_fail_nothing(store: SqlStore) -> None:
    """Text that is too long, too much, or no text is read as far as it can be, and can be filtered by."""
    for name in ("long", "other", "wrong"):
        create(store, name)
    keys = {name: got(store, name).key for name in ("long", "wrong")}
    rows = [{"run_key": keys["long"], "name": b"n%d" % n, "value": b"v" * 9000} for n in range(99)]
    rows += [{"run_key": keys["wrong"], "name": b"\xff\x00", "value": b"\xfe"}]
    with store.transaction() as connection:
        connection.execute(runs.update().where(runs.c.key == keys["long"]).values(note=b"n" * 10**6))
        connection.execute(runs.update().where(runs.c.key == keys["wrong"]).values(note=b"a\xff\xed\xa0\x80"))
        if store.engine_name == "sqlite":  # whose columns take values of any type
            query = "UPDATE runs SET note = 'typed by hand' WHERE run_id = 'other'"
            connection.execute(sa.text(query))
        connection.execute(run_tags.insert(), rows)
    listed = {run.run_id: run for run in store.list(prefix="", status=None, after="", limit=9)}
    assert list(listed) == ["long", "other", "wrong"]
    assert len(listed["long"].note) == MAX_NOTE
    assert len(listed["long"].tags) == MAX_TAGS
    assert set(listed["long"].tags.values()) == {"v" * MAX_VALUE}
    assert listed["wrong"].note.startswith("a\ufffd")
    assert listed["wrong"].tags == {"\ufffd\x00": "\ufffd"}
    if store.engine_name == "sqlite":
        assert listed["other"].note == "typed by hand"
    (found,) = store.list(prefix="", status=None, after="", limit=9, traits=RunTraits(tags={"n1": ""}))
    assert found.run_id == "long"
    assert noted(store, "wrong", note="whole", set_tags={"x": "1"})[1] == "whole"
    for run in listed.values():
        store.delete(run)
    assert orphans(store) == 0


def at_once(url: str, *works: Callable[[SqlStore], None]) -> None:
    """Run functions at once, each with a store of its own over one database."""

    def run(work: Callable[[SqlStore], None]) -> None:
        with closing(open_store(url)) as store:
            work(store)

    with ThreadPoolExecutor(len(works)) as threads:
        for done in [threads.submit(run, work) for work in works]:
            done.result()


def test_concurrent_changes_are_all_kept(postgres: PostgresServer) -> None:
    """Daemons that change one run's tags at once lose none of them, and never exceed their number."""
    url = postgres.new_database()
    with closing(open_store(url)) as store:
        create(store, "a")

        def adding(first: int) -> Callable[[SqlStore], None]:
            def add(own: SqlStore) -> None:
                for number in range(first, first + 12):
                    with suppress(AdvisorError):  # there are too many by then
                        own.change_notes("a", NoteChange(set_tags={f"t{number}": f"{number}"}))

            return add

        at_once(url, adding(0), adding(12))
        assert got(store, "a").tags == {f"t{number}": f"{number}" for number in range(24)}
        at_once(url, adding(24), adding(36))
        assert len(got(store, "a").tags) == MAX_TAGS


def test_a_run_that_is_deleted_meanwhile_leaves_no_tags(postgres: PostgresServer) -> None:
    """Tags set while another daemon deletes the run are refused, or deleted with it."""
    url = postgres.new_database()

    def deleting(store: SqlStore) -> None:
        for _ in range(40):
            store.delete(create(store, "a"))

    def tagging(store: SqlStore) -> None:
        for number in range(80):
            with suppress(AdvisorError):
                store.change_notes("a", NoteChange(set_tags={"x": f"{number}"}))

    at_once(url, deleting, tagging)
    with closing(open_store(url)) as store:
        assert store.get(["a"]) == {}
        assert orphans(store) == 0
