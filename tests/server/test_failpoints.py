"""Failpoints do what the variable requests, and nothing without it."""

from __future__ import annotations

import os
import signal
import time

import pytest

from mlrs_server import failpoints
from mlrs_server.errors import Reason
from mlrs_server.failpoints import parse, reach
from tests.server.support import raises


def test_nothing_is_armed_by_default() -> None:
    """A process without the variable has no failpoint, and reaching one does nothing."""
    assert failpoints.ARMED == {}
    reach("journal.store")


def test_an_error_happens_once_at_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """`error:2` is a store error the second time that the point is reached, and no other."""
    monkeypatch.setattr(failpoints, "ARMED", parse("journal.store=error:2,other=kill"))
    reach("journal.store")
    with raises(Reason.STORE, match="journal.store"):
        reach("journal.store")
    reach("journal.store")


def test_a_pause_takes_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pause:0.05` stops the thread for so long, each time."""
    monkeypatch.setattr(failpoints, "ARMED", parse("here=pause:0.05"))
    for _ in range(2):
        began = time.monotonic()
        reach("here")
        assert time.monotonic() - began >= 0.05


def test_a_kill_is_kill_9(monkeypatch: pytest.MonkeyPatch) -> None:
    """`kill` ends the process as `kill -9` does."""
    sent = []
    monkeypatch.setattr(os, "kill", lambda *arguments: sent.append(arguments))
    monkeypatch.setattr(failpoints, "ARMED", parse("here=kill"))
    with raises(Reason.STORE):  # it would not come to this
        reach("here")
    assert sent == [(os.getpid(), signal.SIGKILL)]


@pytest.mark.parametrize("text", ["journal.store", "=kill", "a=explode", "a=pause", "a=kill:soon"])
def test_a_malformed_value_is_refused(text: str) -> None:
    """A malformed variable is an error: otherwise a test without a failure would pass."""
    with pytest.raises(ValueError, match=r"MLRS_FAILPOINT|could not convert"):
        parse(text)
