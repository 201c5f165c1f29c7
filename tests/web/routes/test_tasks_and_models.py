"""Tasks, models, and the daemon's state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from mlrs.types import TaskInfo
from mlrs_web.routes.tasks import first
from tests.support.dashboard import Dashboard


def test_tasks(dashboard: Dashboard) -> None:
    """A task is listed, and its page has its runs and what the next one would be told."""
    listed = dashboard.get("/api/tasks").json
    assert [(task["name"], task["runs"]) for task in listed["tasks"]] == [("letters", 1)]
    assert (listed["cursor"], listed["truncated"]) == (None, False)
    task = dashboard.get("/api/task", name="letters").json
    assert task["task"] == "letters"
    assert task["measure"] == "training_loss"
    (past,) = task["runs"]
    assert (past["id"], past["ending"], past["horizon"]) == ("remembered", "reached", 10)
    assert past["measured"] == past["training_loss"]
    assert task["next"]["why"]
    assert dashboard.get("/api/task", name="none").status == 404


@pytest.mark.parametrize(("there_are", "is_truncated"), [(0, False), (3, False), (4, True), (9, True)])
async def test_a_long_list_of_tasks_is_cut(there_are: int, is_truncated: bool) -> None:  # noqa: FBT001 # a case
    """Of more tasks than are listed the first ones are read, and that there are more is said."""
    read = []

    async def found() -> AsyncIterator[TaskInfo]:
        for number in range(there_are):
            read.append(number)
            yield TaskInfo(name=str(number), runs=1, update_time=datetime.fromtimestamp(0, UTC))

    taken, truncated = await first(found(), 3)
    assert [task.name for task in taken] == ["0", "1", "2"][:there_are]
    assert truncated is is_truncated
    assert len(read) == min(there_are, 4)


def test_models(dashboard: Dashboard) -> None:
    """A model is listed with what it was made of, and its page has the runs that use it."""
    models = {model["name"]: model for model in dashboard.get("/api/models").json["models"]}
    assert {"mlr-snet", "paper", "tiny"} <= set(models)
    tiny = models["tiny"]
    assert (tiny["architecture"], tiny["architecture_fields"]["hidden_size"]) == ("paper", 8)
    assert tiny["provenance"]["method"] == "random"
    assert tiny["size_bytes"] > 0
    page = dashboard.get("/api/model", ref=tiny["ref"]).json
    assert page["model"] == tiny
    assert {run["id"] for run in page["runs"]} >= {"a/done", "a/open", "held"}
    assert page["quality"] is None
    assert dashboard.get("/api/model", ref="none").status == 404


def test_health(dashboard: Dashboard) -> None:
    """The daemon's state has its answers, its latencies, its store, and the replicas beside it."""
    health = dashboard.get("/api/health").json
    status = health["status"]
    assert status["answers"]["fresh"] >= 40
    assert status["answers"]["held"] >= 12
    latency = status["latency"]
    assert len(latency["counts"]) == len(latency["upper_bounds_s"]) + 1
    assert status["store"]["engine"] == "sqlite"
    assert [replica["answering"] for replica in status["replicas"]] == [True]
    assert health["checks"] == {"store": True}
    with dashboard.follow("/api/live-health") as events:
        assert set(events.until("health")["status"]) == set(status)
