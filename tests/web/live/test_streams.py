"""Streams of events: what pages see of runs that go on, and of daemons that come and go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import mlrs
from mlrs_web.daemons.cache import Cache
from mlrs_web.daemons.daemon import Daemon as Shown
from mlrs_web.live.follower import Follower
from mlrs_web.live.hub import Hub
from mlrs_web.live.sources import Pace, Record
from mlrs_web.live.topic import Topic
from mlrs_web.settings import Settings
from tests.support.daemon import Daemon
from tests.support.dashboard import Dashboard, Events
from tests.support.ports import steady_port
from tests.support.runs import open_run, opened


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that tests may kill, and start again at the same address."""
    data_dir = tmp_path_factory.mktemp("mortal") / "data"
    with Daemon(data_dir, listen=f"127.0.0.1:{steady_port()}") as daemon:
        yield daemon


@pytest.fixture(scope="module")
def pages(mortal: Daemon) -> Iterator[Dashboard]:
    """A dashboard of that daemon."""
    with Dashboard("--connect", mortal.address) as running:
        yield running


def merged(record: dict[str, Any], news: dict[str, Any]) -> dict[str, Any]:
    """Return a record with what is new, as pages merge them."""
    kept = (news["first_step"] - record["first_step"]) // record["steps_per_bucket"]
    assert news["steps_per_bucket"] == record["steps_per_bucket"]
    losses = record["loss"]["mean"][:kept] + news["loss"]["mean"]
    return {**news, "first_step": record["first_step"], "loss": {"mean": losses}}


def follow_until(events: Events, record: dict[str, Any], end_step: int) -> dict[str, Any]:
    """Follow a record until it reaches a step."""
    while record["end_step"] < end_step:
        record = merged(record, events.until("record"))
    return record


def test_a_page_follows_a_run_through_the_death_of_its_daemon(mortal: Daemon, pages: Dashboard) -> None:
    """A page gets every new step, is told that the daemon is away and back, and goes on where it was."""
    with mlrs.connect(mortal.address, timeout_s=20.0) as advisor:
        run = open_run(advisor, "followed", policy="constant", fallback="last")
        for step in range(10):
            run.next_lr(step, float(step))
        assert advisor.get_run("followed").durable_step == 9  # which has it stored
        record = pages.get("/api/record", id="followed").json
        with pages.follow("/api/live", id="followed", cursor=record["cursor"]) as events:
            run.next_lr(10, 10.0)
            record = follow_until(events, record, 11)
            mortal.kill()
            assert "message" in events.until("away")
            assert pages.get("/api/run", id="followed").status == 503
            mortal.start()
            assert events.until("back") == {}
            run.next_lr(11, 11.0)
            record = follow_until(events, record, 12)
            last_id = events.last_id
        for step in range(12, 20):
            run.next_lr(step, float(step))
        with pages.follow("/api/live", last_id, id="followed", cursor="an old one") as events:
            record = follow_until(events, record, 20)
            run.finish()
            while (found := events.next())[1].get("run", found[1])["status"] != "finished":
                pass
    assert record["loss"]["mean"] == [float(step) for step in range(20)]
    assert record["run"]["id"] == "followed"


def test_a_page_that_comes_while_the_daemon_is_away_is_told(mortal: Daemon, pages: Dashboard) -> None:
    """While the daemon is away, the session says so, and new streams say it first."""
    mortal.kill()
    try:
        session = pages.get("/api/session").json
        assert (session["daemon"], session["tokens_required"]) == (None, False)
        with pages.follow("/api/live-runs") as events:
            assert events.next()[0] == "away"
            mortal.start()
            assert events.next()[0] in {"runs", "back"}
    finally:
        if not pages.get("/api/session").json["daemon"]:
            mortal.start()


def test_lists_change_with_their_runs(mortal: Daemon, pages: Dashboard) -> None:
    """A stream of a list sends its first page again when a run that it shows is new."""
    with (
        mlrs.connect(mortal.address, timeout_s=20.0) as advisor,
        pages.follow("/api/live-runs", contains="new") as events,
    ):
        assert events.until("runs")["runs"] == []
        open_run(advisor, "brand-new", policy="constant").next_lr(0, 1.0)
        assert [run["id"] for run in events.until("runs")["runs"]] == ["brand-new"]


def test_what_cannot_be_followed_is_said(pages: Dashboard) -> None:
    """A run that does not exist, or a cursor that is none, is an answer, not a stream."""
    assert pages.get("/api/live", id="none", cursor="").status == 400
    assert pages.get("/api/live", id="none", cursor="x").status == 400
    assert pages.get("/api/live", id="brand-new", cursor="x").status == 400
    assert pages.get("/api/live-runs", status="none").status == 400


async def test_two_pages_cost_one_call(mortal: Daemon) -> None:
    """Two pages that show a run to the same step are served by the same calls of the daemon."""
    shown = Shown(Settings(target=(mortal.address,)), None, 0, Cache(1000))
    summary, calls = shown.advisor.summary, 0

    async def counted(run_id: str, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return await summary(run_id, **options)

    async with mlrs.aio.connect(mortal.address) as advisor:
        run = await opened(advisor, "shared", policy="constant")
        await run.next_lr(0, 1.0)
        assert (await advisor.get_run("shared")).durable_step == 0  # which has it stored
        start = await summary("shared")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(shown.advisor, "summary", counted)
            hub, pages = Hub(10), [Follower(start.cursor) for _ in range(2)]
            pace = Pace(first_s=60.0, most_s=60.0)  # so that only what joins leads to polls

            def topic() -> Topic:
                return Topic(Record(shown, "shared", pace, pace), lambda: None)

            with hub.followed("shared", topic, pages[0]), hub.followed("shared", topic, pages[1]):
                taken = [await page.take(10.0) for page in pages]
    await shown.close()
    assert taken[0] == taken[1]
    assert taken[0]
    assert calls == 1
