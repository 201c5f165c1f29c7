"""The tutorials: a page shows its script, what it says came out is in its picture, and the script runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import indent

import pytest
from PIL import Image

from tests.docs.blocks import ROOT, blocks_of
from tests.support.homes import new_home

PAGES, EXAMPLES, IMAGES = ROOT / "docs" / "tutorials", ROOT / "examples", ROOT / "docs" / "images"
SCRIPTS = {
    "untuned-schedule.md": "tutorial_untuned.py",
    "one-schedule-for-a-cluster.md": "tutorial_cluster.py",
}
"""The script of each page."""


def ran(script: str, *arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script of the examples to its good end."""
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=280, env=dict(environment)
    )
    assert done.returncode == 0, done.stderr
    return done


def said_by(picture: Path) -> str:
    """Return the table that a picture of the first tutorial was drawn from."""
    with Image.open(picture) as image:
        assert image.size == (1650, 1200)
        return str(image.info["Description"])


def test_every_tutorial_has_a_page() -> None:
    """No script of a tutorial is without its page here."""
    assert {path.name for path in EXAMPLES.glob("tutorial_*.py")} == set(SCRIPTS.values())


@pytest.mark.parametrize(("page", "script"), SCRIPTS.items())
def test_a_page_shows_its_script(page: str, script: str) -> None:
    """The blocks of Python of a page are its script, from the first line to the last."""
    blocks = [block.text for block in blocks_of(PAGES / page) if block.language == "python"]
    shown, lines = (
        [line for line in text.splitlines() if line]
        for text in ("\n".join(blocks), (EXAMPLES / script).read_text(encoding="utf-8"))
    )
    assert shown == lines


def test_the_figures_are_those_of_the_picture() -> None:
    """The table of the page is the one that its picture was drawn from, and has the losses that it names."""
    text = (PAGES / "untuned-schedule.md").read_text(encoding="utf-8")
    table = indent(said_by(IMAGES / "tutorial-untuned.png"), "    ")
    assert table in text
    losses = re.findall(r"(?<![\d.])(?!0\.0)\d\.\d{3}(?!\d)", text.replace(table, ""))
    assert losses
    assert [loss for loss in losses if loss not in table] == []


@pytest.mark.slow  # about 30 s on two idle cores, also as the daemon compiles its machine code
@pytest.mark.timeout(300)
def test_the_untuned_schedule_runs(tmp_path: Path) -> None:
    """The first tutorial starts a daemon, trains in all ways, prints a line for each, and draws them."""
    picture = tmp_path / "picture.png"
    with new_home() as home:
        environment = {name: value for name, value in (os.environ | home.environment).items() if value}
        done = ran("tutorial_untuned.py", "--quick", "--out", str(picture), environment=environment)
    assert "mlrs: starting a daemon for this user" in done.stderr
    rows = re.findall(r"^(cosine from \S+|advised, run \d) +200 ", done.stdout, re.MULTILINE)
    cosines = ["cosine from 0.01", "cosine from 0.0316", "cosine from 0.1"]
    assert rows == [*cosines, "advised, run 1", "advised, run 2", "advised, run 3"] * 2
    assert done.stdout == f"{said_by(picture)}\npicture: {picture}\n"


@pytest.mark.slow  # about 30 s on two idle cores; test_torchrun.py has quicker tests of killed ranks
@pytest.mark.timeout(300)
def test_the_cluster_runs(tmp_path: Path) -> None:
    """In the second tutorial a rank is killed, and the numbers are to the bit those of an undisturbed job."""
    picture = tmp_path / "picture.png"
    done = ran("tutorial_cluster.py", "--quick", "--out", str(picture), environment=os.environ)
    first, *claims, last = done.stdout.splitlines()
    killed, resumed = map(int, re.findall(r"\d+", first.removeprefix("rank 0")))
    assert resumed == killed // 22 * 22
    assert [claim.rpartition(": ")[2] for claim in claims] == ["True"] * 4
    assert last == f"picture: {picture}"
    with Image.open(picture) as image:
        assert image.size == (1350, 975)
