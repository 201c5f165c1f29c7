"""The guide for operators: its metrics, log events and files are those that there are."""

from __future__ import annotations

import re
from typing import cast

from docs._ext.metrics import sample_names
from mlrs_server.config import MAX_UNFLUSHED
from tests.deploy.manifests import ROOT

GUIDE = (ROOT / "docs" / "guides" / "operations.md").read_text(encoding="utf-8")
SOURCES = "".join(
    path.read_text(encoding="utf-8")
    for folder in (ROOT / "server" / "mlrs_server", ROOT / "mlrs_core")
    for path in sorted(folder.rglob("*.py"))
)


def test_metrics_are_those_of_the_daemon() -> None:
    """Each metric that the guide names, as in an alert, is served."""
    named = set(re.findall(r"\bmlrs_(?!client\b)[a-z_]+\b", GUIDE))
    assert "mlrs_store_up" in named
    assert named <= sample_names()


def test_events_are_logged() -> None:
    """Each log event in the guide's table is in the daemon's code."""
    (table,) = re.findall(r"^\| event \| level \|.*?\n\n", GUIDE, re.MULTILINE | re.DOTALL)
    named = [
        event
        for row in table.splitlines()[2:]
        if row
        for event in re.findall(r"`([a-z_]+)`", row.split("|")[1])
    ]
    assert len(named) > 15
    assert [event for event in named if f'"{event}"' not in SOURCES] == []


def test_sayings_are_the_daemons() -> None:
    """Messages that the guide quotes are in the code, up to what differs each time."""
    quoted = (
        "its disk is full; free some of it",
        "it is read-only here; give the URL of the primary server",
        "the server took too long; see pg_stat_activity",
        "another session holds a row or a table for too long; see pg_locks",
        "the file is empty, so what it held is lost",
        "another daemon (process ",
    )
    assert [text for text in quoted if text not in GUIDE] == []
    assert [text for text in quoted if text not in SOURCES] == []


def test_limits_of_the_guide_are_the_daemons() -> None:
    """The example's alert on a queue is half of what the daemon lets wait."""
    (alert,) = cast("list[str]", re.findall(r"mlrs_unflushed_answers > (\d{5,})", GUIDE))
    assert 0.4 * MAX_UNFLUSHED < int(alert) < 0.6 * MAX_UNFLUSHED
