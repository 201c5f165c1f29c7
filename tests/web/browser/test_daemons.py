"""What pages show of daemons: one without runs, one that is killed and comes back, and the recorded demo."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import mlrs
from tests.support.browser import expect
from tests.support.daemon import Daemon
from tests.support.dashboard import Dashboard
from tests.support.ports import steady_port
from tests.support.runs import open_run
from tests.web.browser.conftest import Visit


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon without runs, which comes back at the same address."""
    data_dir = tmp_path_factory.mktemp("mortal") / "data"
    with Daemon(data_dir, listen=f"127.0.0.1:{steady_port()}") as daemon:
        yield daemon


@pytest.fixture(scope="module")
def pages(mortal: Daemon) -> Iterator[Dashboard]:
    """A dashboard of that daemon."""
    with Dashboard("--connect", mortal.address) as running:
        yield running


@pytest.fixture(scope="module")
def demo() -> Iterator[Dashboard]:
    """A dashboard of the recorded demo."""
    with Dashboard("--demo") as running:
        yield running


def test_the_first_run_appears_by_itself(mortal: Daemon, pages: Dashboard, visit: Visit) -> None:
    """Without runs the list says in three lines how to make one; the first one then takes their place."""
    visitor = visit(pages, permissions=["clipboard-read", "clipboard-write"])
    page = visitor.open("/")
    expect(page.get_by_role("heading", name="No runs yet")).to_be_visible()
    lines = page.get_by_role("region", name="the three lines").inner_text()
    assert "AdvisedLR(optimizer" in lines
    page.get_by_role("button", name="Copy the three lines").click()
    expect(page.get_by_role("button", name="Copy the three lines")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == lines
    expect(page.get_by_text(f"export MLRS_TARGET={mortal.address}")).to_be_visible()
    with mlrs.connect(mortal.address, timeout_s=20.0) as advisor:
        open_run(advisor, "the-first", policy="constant").next_lr(0, 1.0)
    expect(page.get_by_role("link", name="the-first")).to_be_visible()
    expect(page.get_by_role("heading", name="No runs yet")).to_have_count(0)


def test_pages_outlive_the_daemon(mortal: Daemon, pages: Dashboard, visit: Visit) -> None:
    """A banner says that the daemon is away, and goes when it is back; pages go on without loading again."""
    visitor = visit(pages)
    visitor.expect_complaints(r"status of 503")
    with mlrs.connect(mortal.address, timeout_s=2.0) as advisor:
        run = open_run(advisor, "steadfast", policy="constant", fallback="last", on_unavailable="error")
        for step in range(10):
            run.next_lr(step, 1.0)
        page, other = visitor.open("/run?id=steadfast"), visitor.open("/runs")
        expect(page.locator(".facts")).to_contain_text("10 steps")
        expect(other.get_by_role("row", name="steadfast")).to_be_visible()
        for tab in (page, other):
            tab.evaluate("window.wasHere = true")
        mortal.kill()
        for tab in (page, other):
            expect(tab.get_by_role("status").filter(has_text="does not answer")).to_contain_text(
                mortal.address
            )
        run.next_lr(10, 1.0)  # by the fallback
        late, late_list = visitor.open("/tasks"), visitor.open("/runs?contains=stead")
        for tab in (late, late_list):
            expect(tab.get_by_role("alert")).to_contain_text("Waiting for the daemon")
        mortal.start()
        for tab in (page, other, late, late_list):
            expect(tab.locator(".banner")).to_be_hidden()
        expect(late.get_by_role("heading", name="Tasks", exact=True)).to_be_visible()
        expect(late_list.get_by_role("row", name="steadfast")).to_be_visible()
        run.finish(timeout_s=20.0)
    expect(page.locator(".facts")).to_contain_text("11 steps")
    expect(page.locator(".legend")).to_contain_text(re.compile(r"fallback\s*1"))
    expect(other.get_by_role("row", name="steadfast")).to_contain_text("finished")
    assert [tab.evaluate("window.wasHere") for tab in (page, other)] == [True, True]


def test_the_dashboard_itself_goes(mortal: Daemon, visit: Visit) -> None:
    """Where the dashboard's own process ends, pages say that, too."""
    with Dashboard("--connect", mortal.address) as running:
        visitor = visit(running)
        visitor.expect_complaints(r"ERR_|Failed to load resource")
        page = visitor.open("/health")
        expect(page.get_by_role("heading", name="Store")).to_be_visible()
        running.end()
        expect(page.locator(".banner")).to_contain_text(f"The dashboard at {running.url} does not answer")


def test_the_recorded_demo(demo: Dashboard, visit: Visit) -> None:
    """`mlrs dashboard --demo` shows recorded runs of many kinds, and says that they are recorded."""
    page = visit(demo).open("/")
    expect(page.get_by_text("These are recorded runs.")).to_be_visible()
    rows = page.locator("table.runs .run-link")
    expect(rows.filter(has_text="demo/torch/advised")).to_be_visible()
    assert rows.count() > 10
    rows.filter(has_text="digits/outage/1").click()
    expect(page.locator(".legend")).to_contain_text("fallback")
