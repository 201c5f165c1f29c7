"""The page of a run: zoom, live steps, downloads, and text that looks like markup."""

from __future__ import annotations

import csv
import re
import struct
from pathlib import Path
from urllib.parse import urlencode

import mlrs
from tests.support.browser import Locator, Page, expect
from tests.support.daemon import Daemon
from tests.support.dashboard import Dashboard
from tests.support.runs import open_run
from tests.web.browser.conftest import Visit
from tests.web.browser.varied import HELD, HOSTILE, LONG, MARKUP, SPIKE, STEPS

RUN = f"/run?{urlencode({'id': LONG})}"


def at(chart: Locator, share: float) -> tuple[float, float]:
    """Return the place in the middle of a chart's height, at a share of its width."""
    box = chart.bounding_box()
    assert box is not None
    return box["x"] + share * box["width"], box["y"] + box["height"] / 2


def drag(page: Page, chart: Locator, first: float, last: float) -> None:
    """Drag over a part of a chart."""
    page.mouse.move(*at(chart, first))
    page.mouse.down()
    page.mouse.move(*at(chart, (first + last) / 2))
    page.mouse.move(*at(chart, last))
    page.mouse.up()


def test_zoom_reads_finer_buckets(dashboard: Dashboard, visit: Visit) -> None:
    """Dragging over a chart reads that part in finer buckets; the address keeps it; all steps come back."""
    page = visit(dashboard).open(RUN)
    curves = page.get_by_role("region", name="Curves")
    expect(curves).to_contain_text("mean loss of 8 steps")
    chart = page.locator(".u-over").first
    middle = SPIKE / STEPS
    with page.expect_response(
        lambda answer: "/api/record" in answer.url and "from=" in answer.url
    ) as answered:
        drag(page, chart, middle - 0.05, middle + 0.05)
    record = answered.value.json()
    assert record["steps_per_bucket"] == 1
    assert (
        STEPS * (middle - 0.06) < record["first_step"] < SPIKE < record["end_step"] < STEPS * (middle + 0.06)
    )
    expect(curves).to_contain_text("loss of each step")
    expect(page).to_have_url(re.compile("from=.*to="))
    page.reload()
    expect(curves).to_contain_text("loss of each step")
    page.get_by_role("button", name="All steps").click()
    expect(curves).to_contain_text("mean loss of 8 steps")
    assert "from=" not in page.url


def test_spikes_survive(dashboard: Dashboard, visit: Visit) -> None:
    """One step of eight with a large loss shows in the range of its bucket, where the cursor points at it."""
    page = visit(dashboard).open(RUN)
    expect(page.locator(".readout")).to_contain_text(f"newest: step {STEPS:,}")
    page.mouse.move(*at(page.locator(".u-over").first, (SPIKE + 0.5) / STEPS))
    expect(page.locator(".readout")).to_contain_text("steps 3,000 to 3,007")
    expect(page.locator(".readout")).to_contain_text("to 50)")


def test_the_page_and_the_list_follow_a_run(daemon: Daemon, dashboard: Dashboard, visit: Visit) -> None:
    """While a run goes on, its page and its row show the newest step, and its chart is drawn again."""
    visitor = visit(dashboard)
    observe_steps(daemon, 0, 10)
    page, list_page = visitor.open("/run?id=followed"), visitor.open("/runs?contains=followed")
    row = list_page.get_by_role("row", name="followed")
    for shown in (page.locator(".facts"), row):
        expect(shown).to_contain_text("10 steps")
    chart = page.get_by_role("img", name="Loss of followed over 10 steps; the newest loss is 0.1.")
    expect(chart.locator("canvas")).to_be_visible()
    before = page.locator(".plot canvas").first.screenshot()
    observe_steps(daemon, 10, 30)
    for shown in (page.locator(".facts"), row):
        expect(shown).to_contain_text("30 steps")
    expect(page.locator(".readout")).to_contain_text("newest: step 29")
    expect(page.get_by_role("img", name="over 30 steps")).to_be_visible()
    assert page.locator(".plot canvas").first.screenshot() != before


def observe_steps(daemon: Daemon, first: int, end: int) -> None:
    """Observe steps of the run `followed`."""
    with mlrs.connect(daemon.address, timeout_s=20.0) as advisor:
        run = open_run(advisor, "followed", policy="constant")
        for step in range(first, end):
            run.next_lr(step, 1 / (1 + step))


def test_downloads(dashboard: Dashboard, visit: Visit, tmp_path: Path) -> None:
    """The record is saved as CSV, whole, and the charts as a picture."""
    page = visit(dashboard).open(RUN)
    expect(page.locator(".plot canvas").first).to_be_visible()
    with page.expect_download() as downloading:
        page.get_by_role("link", name="CSV").click()
    assert downloading.value.suggested_filename == "vision_resnet_long.csv"
    downloading.value.save_as(tmp_path / "run.csv")
    with (tmp_path / "run.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(STEPS + 1))
    assert [step for step, row in enumerate(rows) if row["reason"] == "held"] == list(HELD)
    assert float(rows[SPIKE]["loss"]) == 50.0
    with page.expect_download() as downloading:
        page.get_by_role("button", name="PNG").click()
    assert downloading.value.suggested_filename == "vision_resnet_long.png"
    downloading.value.save_as(tmp_path / "run.png")
    picture = (tmp_path / "run.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n")
    width, height = struct.unpack(">II", picture[16:24])
    assert width > 800
    assert height > 500


def test_markup_is_text(dashboard: Dashboard, visit: Visit) -> None:
    """Tags and notes that look like markup are shown as they are, on every page that shows them."""
    visitor = visit(dashboard)
    page = visitor.open("/run?id=marked-up")
    assert page.locator(".note").text_content() == HOSTILE
    for path in (
        "/run?id=marked-up",
        "/runs?contains=marked-up",
        f"/runs?{urlencode({'tag': f'danger:{MARKUP}'})}",
    ):
        page = visitor.open(path)
        expect(page.locator("main .tag").first).to_contain_text(MARKUP)
        expect(page.get_by_text("marked-up").first).to_be_visible()
        assert page.locator("main img, main script").count() == 0
        assert page.title() != "broken"
        assert "\x1b" not in page.content()
        page.close()
