"""Fails a build whose pages would load anything from elsewhere: scripts, styles, fonts or pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.typing import ExtensionMetadata

ELSEWHERE = re.compile(r"\s*(?:[a-z]+:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"""(?:@import\s+|url\(\s*)["']?\s*((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)
LOADING = {"src", "srcset", "poster", "data"}
"""Attributes whose URL a browser loads by itself. `href` does so in `link` only."""


class Loads(HTMLParser):
    """Collects what a page loads from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at the attributes of a tag."""
        for name, value in attrs:
            loads = name in LOADING or (tag == "link" and name == "href")
            if loads and ELSEWHERE.match(value or ""):
                self.found.append(value or "")
            if name == "style":
                self.found += IN_STYLE.findall(value or "")


def loaded_from_elsewhere(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files of a site with what they load from elsewhere."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".html":
            page = Loads()
            page.feed(path.read_text(encoding="utf-8"))
            yield from ((path, url) for url in page.found)
        elif path.suffix == ".css":
            yield from ((path, url) for url in IN_STYLE.findall(path.read_text(encoding="utf-8")))


def check(app: Sphinx, problem: Exception | None) -> None:
    """Check the pages of a build.

    Raises:
        ExtensionError: a page loads something from elsewhere.
    """
    if problem is None and app.builder.format == "html":
        found = [f"{path}: {url}" for path, url in loaded_from_elsewhere(Path(app.outdir))]
        if found:
            raise ExtensionError("the site loads from elsewhere: " + "; ".join(found))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Check the pages when a build has ended."""
    app.connect("build-finished", check)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
