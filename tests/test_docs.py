"""The pages: what they link to is there, and nothing in them waits to be filled in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT

MADE = ROOT / "docs" / "reference" / "api"
"""Where the build of the site writes pages."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file of the repository."""
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    local = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]
    paths = [(page.parent / link).resolve() for link in local]
    assert [path for path in paths if not path.exists() and not path.is_relative_to(MADE)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_nothing_waits_to_be_filled_in(page: Path) -> None:
    """No page holds a placeholder."""
    assert re.findall(r"(?<![\w`])@\w+@|TODO|TBD|FIXME", page.read_text(encoding="utf-8")) == []
