"""Lists of runs, samples, and one run."""

from __future__ import annotations

import pytest

import mlrs
from tests.support.daemon import Daemon
from tests.support.dashboard import Dashboard
from tests.support.runs import open_run
from tests.web.conftest import SHOWN, STEPS

RUN = {
    "batch_size",
    "create_time",
    "durable_step",
    "horizon",
    "id",
    "last_learning_rate",
    "last_loss",
    "meta",
    "model",
    "next_step",
    "note",
    "optimizer",
    "schedule",
    "status",
    "tags",
    "task",
    "update_time",
    "world_size",
}


def ids_of(dashboard: Dashboard, **query: object) -> list[str]:
    """Return the ids of a list."""
    return [run["id"] for run in dashboard.get("/api/runs", **query).json["runs"]]


def test_runs_are_listed_newest_first(dashboard: Dashboard) -> None:
    """A list has every run once, whatever the size of its pages; the newest comes first."""
    everything = dashboard.get("/api/runs").json
    assert everything["cursor"] is None
    assert all(set(run) == RUN for run in everything["runs"])
    assert [run["id"] for run in everything["runs"]] == ["remembered", "held", "a/open", "a/done"]
    found, cursor = [], ""
    while cursor is not None:
        page = dashboard.get("/api/runs", size=1, cursor=cursor).json
        found += page["runs"]
        cursor = page["cursor"]
    assert [run["id"] for run in found] == [run["id"] for run in everything["runs"]]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({"contains": "one"}, ["a/done"]),
        ({"status": "finished"}, ["remembered", "a/done"]),
        ({"status": "diverged"}, ["held"]),
        ({"task": "letters"}, ["remembered"]),
        ({"model": "tiny", "contains": "open"}, ["a/open"]),
        ({"model": "paper"}, []),
        ({"tag": "team:vision"}, ["a/done"]),
        ({"tag": ["team:vision", "team:"]}, ["a/done"]),
        ({"tag": "team:speech"}, []),
        ({"order": "id"}, ["a/done", "a/open", "held", "remembered"]),
        ({"order": "created", "size": 1}, ["remembered"]),
    ],
)
def test_lists_are_filtered_and_sorted(dashboard: Dashboard, query: dict[str, str], ids: list[str]) -> None:
    """Each filter keeps the runs that it names; orders are those of the contract."""
    assert ids_of(dashboard, **query) == ids


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/runs?order=none", "order"),
        ("/api/runs?status=none", "status"),
        ("/api/runs?size=0", "size"),
        ("/api/runs?size=x", "size"),
        ("/api/runs?size=" + "9" * 5000, "size"),
        ("/api/run", "id"),
        ("/api/samples", "id"),
        ("/api/samples?" + "&".join(f"id={number}" for number in range(101)), "id"),
        ("/api/record?id=held&from=-1", "from"),
        ("/api/record?id=held&buckets=4097", "buckets"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(dashboard: Dashboard, path: str, field: str) -> None:
    """A value that is missing, malformed or out of range is refused with its name."""
    answer = dashboard.get(path)
    assert (answer.status, answer.json["error"]["code"], answer.json["error"]["field"]) == (
        400,
        "invalid",
        field,
    )


def test_a_run_with_what_belongs_to_it(dashboard: Dashboard) -> None:
    """A run has its settings, tags and note as they were given, also where they look like markup."""
    answer = dashboard.get("/api/run", id="a/done")
    run = answer.json["run"]
    assert (run["status"], run["next_step"], run["horizon"]) == ("finished", STEPS, STEPS)
    assert (run["tags"], run["note"]) == ({"team": "vision"}, SHOWN)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["config"]["num_classes"] == 10
    assert "meta" not in answer.json["config"]
    assert answer.json["why"] == "The run takes no part in the memory of its task."
    assert answer.json["search"] is answer.json["ranks"] is None
    assert answer.json["events"] == []
    remembered = dashboard.get("/api/run", id="remembered").json
    assert remembered["run"]["task"] == "letters"
    assert "the first run of its task" in remembered["why"]


def test_the_ranks_of_a_run(daemon: Daemon, dashboard: Dashboard) -> None:
    """A run that ranks share says how many have reported its step, and which were missing before."""
    with mlrs.connect(daemon.address, timeout_s=20) as advisor:
        options = {"rank": 1, "world_size": 2, "straggler_timeout_s": 0.02, "quorum": 0.5}
        run = open_run(advisor, "ranked", horizon=9, **options)
        try:
            run.next_lr(0, 1.0)
            assert dashboard.get("/api/run", id="ranked").json["ranks"] == {
                "world_size": 2,
                "step": 1,
                "reported": 0,
                "missing": [],
                "waiting_s": None,
                "misses": [{"rank": 0, "steps": 1}],
            }
        finally:
            advisor.delete_run("ranked")


def test_numbers_that_are_none_are_null(dashboard: Dashboard) -> None:
    """NaN is no JSON: where a loss is not finite, it is null."""
    assert dashboard.get("/api/run", id="held").json["run"]["last_loss"] is None
    assert dashboard.get("/api/samples", id="held").json["samples"]["held"]["losses"] == [None] * 12


def test_a_run_that_does_not_exist(dashboard: Dashboard) -> None:
    """A run that nobody made is not found."""
    answer = dashboard.get("/api/run", id="none")
    assert (answer.status, answer.json["error"]["code"]) == (404, "not_found")


def test_samples_are_kept_while_their_run_does_not_go_on(daemon: Daemon, dashboard: Dashboard) -> None:
    """Samples come from memory, within its bound, until the list shows that the run has gone on."""

    def steps() -> list[int]:
        dashboard.get("/api/runs", contains="sampled")
        found = dashboard.get("/api/samples", id=["sampled", "none"]).json["samples"]
        assert set(found) == {"sampled"}
        return [*found["sampled"]["steps"]]

    def kept_bytes() -> int:
        about = dashboard.get("/api/session").json["dashboard"]
        assert about["memory_bytes"] <= about["memory_limit_bytes"]
        return int(about["memory_bytes"])

    with mlrs.connect(daemon.address, timeout_s=20) as advisor:
        run = open_run(advisor, "sampled", policy="constant")
        try:
            run.next_lr(0, 1.0)
            advisor.get_run("sampled")  # which has it stored
            assert steps() == [0]
            before = kept_bytes()
            assert steps() == [0]
            assert kept_bytes() == before
            run.next_lr(1, 1.0)
            advisor.get_run("sampled")
            assert steps() == [0, 1]
            assert kept_bytes() > before
        finally:
            advisor.delete_run("sampled")
