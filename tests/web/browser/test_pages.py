"""Each page, as a browser shows it: its content, at two widths, its theme and its keys."""

from __future__ import annotations

import re
from urllib.parse import urlencode

import pytest

from tests.support.browser import Page, expect
from tests.support.dashboard import Dashboard
from tests.web.browser.conftest import Visit
from tests.web.browser.varied import LONG, MARKUP, NOTE, TASK

PAGES = {
    "/": ["marked-up", "diverged", "ranked", LONG, "team: vision"],
    f"/run?{urlencode({'id': LONG})}": [
        *NOTE.split("\n"),
        *("6,001 / 10,000", "cosine schedule", "mean loss of 8 steps", "held 10", "validation loss"),
        *("squared norm of the gradient", "batch size", "The run takes no part in the memory of its task."),
    ],
    "/run?id=rewound": ["rewound 1", "Rewound from step 40 to step 25."],
    "/run?id=rescued": ["held 2", "restore asked 1", "restored 1"],
    "/run?id=searched": ["Search for the learning rate", "4 trials", "All trials", "wsd schedule"],
    "/run?id=adapted": ["Meta updates", "12 applied", "meta update 12", "All meta updates shown"],
    "/run?id=ranked": ["Ranks and stragglers", "No rank has reported step 12 yet.", "rank 1", "3 steps"],
    "/run?id=diverged": ["diverged", "diverged 1", "held 15"],
    f"/compare?{urlencode({'ids': [LONG, 'adapted', 'none']}, doseq=True)}": [
        *("Comparison of 2 runs", "Not found: none", "schedule", "advised", "final loss", "best"),
    ],
    "/compare": ["Compare runs", "Select runs in the list of runs"],
    "/tasks": [TASK, "remembered runs", "5"],
    f"/task?{urlencode({'name': TASK})}": [
        *("5 runs", "The next run", "It would begin with", f"{TASK}/4", "reached its horizon"),
        "How runs ended that a model advised, by what its rates were multiplied with",
    ],
    "/models": ["tiny@", "default", "random", "its runs"],
    "/model?ref=tiny": [
        "tiny@",
        "SHA-256",
        "Provenance",
        "method",
        "random",
        "Runs that use it",
        "letters/4",
    ],
    "/health": [
        *("Advice a second", "Latency", "works", "sqlite", "answers this page", "256 of 256"),
        *("Computed from the observation.", "Refusals", "0.1.0"),
    ],
}


@pytest.mark.parametrize("path", PAGES)
def test_pages_show_their_content(path: str, dashboard: Dashboard, visit: Visit) -> None:
    """Every page shows what it is for, and fits into a window of 400 pixels without scrolling sideways."""
    visitor = visit(dashboard)
    visitor.expect_complaints(r"status of 404 .*/api/record\?.*id=none")
    page = visitor.open(path)
    shown = page.locator(".page:not([aria-busy])")
    for text in PAGES[path]:
        expect(shown).to_contain_text(re.compile(re.escape(text).replace("\\ ", r"\s*")), use_inner_text=True)
    page.set_viewport_size({"width": 400, "height": 800})
    page.reload()
    expect(shown).not_to_be_empty()
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    expect(page.get_by_role("navigation").get_by_role("link")).to_have_count(5)


def test_what_does_not_exist_is_said(dashboard: Dashboard, visit: Visit) -> None:
    """A run, task or model that does not exist is said in words, and what the address names is no markup."""
    visitor = visit(dashboard)
    visitor.expect_complaints(r"status of (404|400) .*/api/(run|task|model|record)\?")
    for path, query in {
        "/run": {"id": "no/such"},
        "/task": {"name": MARKUP},
        "/model": {"ref": MARKUP},
    }.items():
        page = visitor.open(f"{path}?{urlencode(query)}")
        expect(page.get_by_role("alert")).to_contain_text("All runs")
        assert page.locator("main img, main script").count() == 0
        assert page.title() != "broken"
        page.close()


def test_a_task_of_which_nothing_is_remembered(dashboard: Dashboard, visit: Visit) -> None:
    """Its page says so, and leads to its runs, rather than to an error."""
    visitor = visit(dashboard)
    visitor.expect_complaints(r"status of 404 .*/api/task\?")
    page = visitor.open("/task?name=unheard-of")
    expect(page.get_by_role("main")).to_contain_text("Nothing is remembered of this task")
    expect(page.get_by_role("link", name="All its runs")).to_have_attribute("href", "/runs?task=unheard-of")
    page.close()


def test_the_theme_is_the_systems_or_the_readers(dashboard: Dashboard, visit: Visit) -> None:
    """A page is light or dark as the system is, until the reader chooses, which holds after loading again."""
    page = visit(dashboard, color_scheme="dark").open(f"/run?{urlencode({'id': LONG})}")
    root = page.locator("html")
    expect(root).to_have_attribute("data-theme", "dark")
    assert brightness(page) < 60
    page.get_by_role("button", name="Theme: as the system").click()
    expect(root).to_have_attribute("data-theme", "light")
    assert brightness(page) > 200
    page.reload()
    expect(root).to_have_attribute("data-theme", "light")
    page.get_by_role("button", name="Theme: light").click()
    expect(root).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Theme: dark").click()
    page.emulate_media(color_scheme="light")
    expect(root).to_have_attribute("data-theme", "light")


def brightness(page: Page) -> float:
    """Return the mean brightness of a page's ground, 0 to 255."""
    colour: str = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


def test_keys(dashboard: Dashboard, visit: Visit) -> None:
    """Without a mouse: rows are chosen, opened and compared, pages change, and a list names the keys."""
    page = visit(dashboard).open("/runs?contains=letters/")
    expect(page.get_by_role("link", name="letters/4")).to_be_visible()
    for key in ("j", "x", "j", "k", "ArrowDown", "x"):
        page.keyboard.press(key)
    expect(page.get_by_role("region", name="Selected runs")).to_contain_text("2 runs selected")
    page.keyboard.press("c")
    expect(page.get_by_role("heading", level=1)).to_have_text("Comparison of 2 runs")
    for key in ("g", "r"):
        page.keyboard.press(key)
    expect(page.get_by_role("link", name=LONG)).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("resnet")
    expect(page).to_have_url(re.compile("contains=resnet"))
    expect(page.get_by_role("link", name="letters/4")).to_have_count(0)
    for key in ("Escape", "j", "Enter"):
        page.keyboard.press(key)
    expect(page.get_by_role("heading", level=1)).to_have_text(LONG)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Show all steps")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.go_back()
    expect(page).to_have_url(re.compile("/runs"))
