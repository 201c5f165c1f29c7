"""Processes that tests look at from outside."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="finds processes as Linux shows them"
)
"""Marks tests that look for a process's children."""


def children_of(pid: int) -> list[int]:
    """Return the processes that a process started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    """Return whether a process has not ended; one that nobody waited for has."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def wait_for_end(pids: list[int], limit_s: float = 20) -> None:
    """Wait until these processes have ended."""
    until = time.monotonic() + limit_s
    while running := [pid for pid in pids if is_running(pid)]:
        assert time.monotonic() < until, running
        time.sleep(0.05)
