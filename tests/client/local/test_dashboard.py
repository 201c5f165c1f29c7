"""Where the dashboard of a user's daemon is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlrs.local.dashboard import dashboard_url, told_url, where_to_look
from mlrs.local.place import Place

URL = "http://127.0.0.1:8265"
TOLD = """
import sys
from pathlib import Path
from mlrs.local.dashboard import told_url
from mlrs.local.place import Place

with told_url(Place(Path(sys.argv[1]), Path(sys.argv[1])), sys.argv[2]):
    print("told", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place for a daemon and its dashboard."""
    return Place(tmp_path, tmp_path)


def test_the_url_is_known_while_the_dashboard_runs(place: Place) -> None:
    """A run's page is named while a dashboard runs, and the command before and afterwards."""
    assert where_to_look(place, "a/b c") == "mlrs dashboard"
    with told_url(place, URL):
        assert where_to_look(place, "a/b c") == f"{URL}/run?id=a%2Fb%20c"
    assert where_to_look(place, "a/b c") == "mlrs dashboard"


def test_nobody_is_sent_to_a_dashboard_that_was_killed(place: Place) -> None:
    """After a kill -9 of the dashboard, its file is there and not believed; the next one uses it."""
    with subprocess.Popen(
        [sys.executable, "-c", TOLD, str(place.folder), URL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"told\n"
        assert dashboard_url(place) == URL
        os.kill(process.pid, signal.SIGKILL)
    assert place.dashboard.read_text(encoding="utf-8") == URL
    assert dashboard_url(place) is None
    with told_url(place, "http://127.0.0.1:1"):
        assert dashboard_url(place) == "http://127.0.0.1:1"


def test_the_first_dashboard_stays(place: Place) -> None:
    """A second dashboard of the same daemon leaves the URL of the first one in place."""
    with told_url(place, URL), told_url(place, "http://127.0.0.1:2"):
        assert dashboard_url(place) == URL


@pytest.mark.parametrize("text", ["", "javascript:alert(1)", "http://a\x1b[2J", "http://a\nb"])
def test_other_text_is_no_url(place: Place, text: str) -> None:
    """What is not a URL in one printable line is not shown to anyone."""
    with told_url(place, text):
        assert dashboard_url(place) is None
