"""Background threads that a shutdown does not wait for."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from mlrs_server.storage.engines.sqlite import BUSY_S
from mlrs_server.system.background import in_background
from tests.server.support import until
from tests.support.daemon import Daemon

STOPS_WITHIN_S = BUSY_S / 2
"""Well below the timeout of what the daemon waits for."""


async def test_result_and_error_reach_the_caller() -> None:
    """The caller gets the result, or the error."""
    assert await in_background(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await in_background(lambda: 1 // 0)


async def test_a_cancelled_caller_does_not_wait_and_its_result_is_undone() -> None:
    """A cancelled caller continues at once; the later result is undone."""
    release, undone = threading.Event(), list[str]()
    waiting = asyncio.create_task(in_background(lambda: str(release.wait(30)), undone.append))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not undone
    release.set()
    await until(lambda: undone == ["True"])


def stopped(daemon: Daemon, once: Callable[[], bool]) -> float:
    """Stop a starting daemon once a condition holds; return the seconds until its clean end."""
    deadline = time.monotonic() + 60
    while not once():
        assert time.monotonic() < deadline, daemon.log.read_text(encoding="utf-8")
        time.sleep(0.01)
    began = time.monotonic()
    assert daemon.stop() == 0, daemon.log.read_text(encoding="utf-8")
    took_s = time.monotonic() - began
    log = daemon.log.read_text(encoding="utf-8")
    assert "stopped_at_start" in log
    assert "Traceback" not in log
    return took_s


def has_open(daemon: Daemon, file: Path) -> bool:
    """Return whether a daemon has a file open."""
    with suppress(FileNotFoundError):  # it is opening and closing others
        return any(link.readlink() == file for link in Path(f"/proc/{daemon.pid}/fd").iterdir())
    return False


def test_a_start_that_waits_for_a_locked_file_obeys_sigterm(tmp_path: Path) -> None:
    """While another process holds the store, a starting daemon ends at SIGTERM."""
    (tmp_path / "d").mkdir()
    file = tmp_path / "d" / "mlrs.sqlite3"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("CREATE TABLE t (x)")
        other.execute("BEGIN EXCLUSIVE")
        daemon = Daemon(tmp_path / "d").launch()
        assert stopped(daemon, lambda: has_open(daemon, file)) < STOPS_WITHIN_S


def test_a_start_that_waits_for_a_server_obeys_sigterm(tmp_path: Path) -> None:
    """While a server takes the connection and says nothing, a starting daemon ends at SIGTERM."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql://mlrs:x@127.0.0.1:{server.getsockname()[1]}/mlrs"
        daemon = Daemon(tmp_path / "d", "--store", url).launch()
        server.settimeout(60)
        with server.accept()[0]:
            assert stopped(daemon, lambda: True) < STOPS_WITHIN_S


def test_a_start_that_compiles_obeys_sigterm(tmp_path: Path) -> None:
    """While the kernels are compiled, for many seconds, a starting daemon ends at SIGTERM."""
    cache = tmp_path / "cache"
    daemon = Daemon(tmp_path / "d", environment={"NUMBA_CACHE_DIR": str(cache)}).launch()
    assert stopped(daemon, lambda: any(cache.rglob("*.nbi"))) < STOPS_WITHIN_S
