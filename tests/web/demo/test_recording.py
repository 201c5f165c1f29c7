"""The recorded demo."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlrs_web.demo.recording import RECORDING
from tests.support.dashboard import Dashboard


@pytest.fixture(scope="module")
def demo() -> Iterator[Dashboard]:
    """A dashboard with the recorded demo; an address in the environment does not matter."""
    with Dashboard("--demo", environment={"MLRS_TARGET": "127.0.0.1:1", "MLRS_TOKEN": "none"}) as running:
        yield running


def test_the_recording_is_small() -> None:
    """The recording is a file of a package that every user installs."""
    assert RECORDING.stat().st_size < 300_000


def test_every_page_has_something_to_show(demo: Dashboard) -> None:
    """The demo says that it is one, and has runs of every kind that pages show."""
    session = demo.get("/api/session").json
    assert session["demo"]
    runs = {run["id"]: run for run in demo.get("/api/runs", size=200).json["runs"]}
    assert {run["status"] for run in runs.values()} == {"active", "diverged", "finished"}
    assert {"constant", "cosine", "multi-step"} <= {run["schedule"] for run in runs.values()}
    assert any(run["tags"] for run in runs.values())
    assert any(run["note"] for run in runs.values())
    about = {id_: demo.get("/api/run", id=id_).json for id_ in runs}
    assert any(each["search"] and each["search"]["found"] for each in about.values())
    assert {"rewound", "fallback"} <= {event["kind"] for each in about.values() for event in each["events"]}
    records = {id_: demo.get("/api/record", id=id_).json for id_ in runs}
    for column in ("updates", "validations", "signals", "restores", "restored"):
        assert any(record[column] for record in records.values()), column
    assert any(sum(record["held"]) for record in records.values())
    assert all(record["end_step"] > 0 for record in records.values())


def test_the_demo_has_a_task_that_is_remembered_and_versions_of_a_model(demo: Dashboard) -> None:
    """One task has enough runs for a curve, and a model was promoted."""
    tasks = demo.get("/api/tasks").json["tasks"]
    curves = [demo.get("/api/task", name=task["name"]).json["curve"] for task in tasks]
    assert any(curves)
    models = demo.get("/api/models").json["models"]
    aliased = [model for model in models if "stable" in model["aliases"]]
    assert len(aliased) == 1
    page = demo.get("/api/model", ref=aliased[0]["ref"]).json
    assert [change["cause"] for change in page["changes"]["stable"]] == ["promote"]
    assert page["runs"]
