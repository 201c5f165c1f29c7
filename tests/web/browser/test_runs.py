"""The list of runs, and the comparison of those that are chosen in it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import mlrs
from tests.support.browser import Page, expect
from tests.support.daemon import Daemon
from tests.support.dashboard import Dashboard
from tests.web.browser.conftest import Visit
from tests.web.browser.varied import LONG

RUNS = 10_000


def ids(page: Page) -> list[str]:
    """Return the ids of the runs that are in the page."""
    return page.locator("table.runs .run-link").all_text_contents()


def test_filters_are_in_the_address(dashboard: Dashboard, visit: Visit) -> None:
    """Filters are applied by the daemon, stand in the address, and come back from it."""
    page = visit(dashboard).open("/runs")
    rows = page.locator("table.runs .run-link")
    expect(rows.first).to_be_visible()
    page.get_by_label("status", exact=True).select_option("diverged")
    expect(rows).to_have_text(["diverged"])
    expect(page).to_have_url(re.compile(r"\?status=diverged$"))
    page.reload()
    expect(rows).to_have_text(["diverged"])
    page.get_by_role("button", name="Clear", exact=True).click()
    page.get_by_label("Tag, as name:value").fill("team:vision")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(rows).to_have_text([LONG])
    page.get_by_label("id contains").fill("letters")
    expect(page.get_by_role("heading", name="No run matches")).to_be_visible()
    page.get_by_role("button", name="Remove the tag filter team:vision").click()
    page.get_by_label("order", exact=True).select_option("id")
    expect(rows).to_have_text([f"letters/{number}" for number in range(5)])
    expect(page).to_have_url(re.compile(r"\?contains=letters&order=id$"))


def test_runs_are_compared(dashboard: Dashboard, visit: Visit) -> None:
    """Chosen runs are drawn over each other, by steps or shares of horizons, with their final losses."""
    page = visit(dashboard).open("/runs")
    page.get_by_label(f"Select {LONG}").check()
    page.get_by_label("Select adapted").check()
    page.get_by_role("region", name="Selected runs").get_by_role("link", name="Compare").click()
    expect(page.get_by_role("row", name=LONG)).to_contain_text("schedule")
    expect(page.get_by_role("row", name="adapted")).to_contain_text("0.0339best")
    chart, readout = page.locator(".u-over").first, page.locator(".readout")
    chart.hover()
    expect(readout).to_contain_text(re.compile(r"at step (2,99\d|3,00\d)"))
    expect(readout).not_to_contain_text("adapted")  # which has 60 steps
    page.get_by_label("share of the horizon").check()
    expect(page).to_have_url(re.compile("x=share"))
    chart.hover(position={"x": 10, "y": 10})
    expect(readout).to_contain_text("% of the horizon")
    expect(readout).to_contain_text("adapted")
    with page.expect_download() as downloading:
        page.get_by_role("button", name="PNG").click()
    assert downloading.value.suggested_filename == "comparison.png"
    page.get_by_label("Id of a run to add").fill("diverged")
    page.get_by_role("button", name="Add the run").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Comparison of 3 runs")
    page.get_by_role("button", name=f"Remove {LONG} from the comparison").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Comparison of 2 runs")


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard of a daemon with very many runs."""
    with Daemon(tmp_path_factory.mktemp("crowd") / "data") as daemon:
        with mlrs.connect(daemon.address, timeout_s=30.0) as advisor:
            sweep = advisor.sweep([f"member/{index:05}" for index in range(RUNS)], policy="constant")
            sweep.next_lrs(0, [1.0] * RUNS)
        with Dashboard("--connect", daemon.address) as running:
            yield running


def test_ten_thousand_runs(crowd: Dashboard, visit: Visit) -> None:
    """However many runs there are, the page has the rows of one screen, reads on, and finds any of them."""
    page = visit(crowd).open("/runs?order=id")
    count = page.locator(".list-count")
    expect(count).to_have_text("100 runs so far; scroll down for more")
    for known in (200, 300, 400):
        page.mouse.wheel(0, 100_000)
        expect(count).to_have_text(f"{known} runs so far; scroll down for more")
        expect(page.get_by_title(f"member/{known - 101:05}", exact=True)).to_be_attached()
        assert len(ids(page)) < 60
    page.get_by_label("id contains").fill("/09999")
    expect(page.locator("table.runs .run-link")).to_have_text(["member/09999"])
