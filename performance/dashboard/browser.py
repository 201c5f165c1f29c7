"""How long a browser takes from its navigation to a page until what the page is about is drawn."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlencode

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")
DRAWN = """selector => [...document.querySelectorAll(selector)].some(canvas => {
    if (!canvas.width || !canvas.height) return false;
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    return pixels.some(value => value > 0);
}) && performance.now()"""
"""Returns the milliseconds since the navigation once any of some canvases has something on it."""


def drawn(url: str, run_id: str, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of navigations to the list and to a run's page, each with empty caches.

    Nothing, if there is no browser here.
    """
    if not CHROMIUM.exists() or find_spec("playwright") is None:
        return {}
    from playwright.sync_api import sync_playwright

    pages = {
        "list": ("/runs", ".runs canvas"),
        "run": (f"/run?{urlencode({'id': run_id})}", ".linked canvas"),
    }
    taken: dict[str, list[float]] = {name: [] for name in pages}
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS) as browser,
    ):
        for _ in range(1 + rounds):  # the first one starts what the browser consists of
            for name, (path, selector) in pages.items():
                with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
                    page = context.new_page()
                    page.goto(url + path, wait_until="commit")
                    shown = page.wait_for_function(DRAWN, arg=selector, polling="raf")
                    taken[name].append(shown.json_value() / 1e3)
    return {name: some[1:] for name, some in taken.items()}
