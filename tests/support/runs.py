"""Runs by their ids, as most tests want them: created, or gone on with, whichever applies; without memory."""

from __future__ import annotations

import inspect
import time
from typing import Any

import mlrs
from tests.support.daemon import Daemon


async def opened(advisor: Any, id_: str, **config: Any) -> Any:
    """Return an open run of an advisor of either flavour."""
    run = advisor.run("task", id=id_, **({"on_existing": "resume", "memory": False} | config))
    run = await run if inspect.isawaitable(run) else run
    opening = run.open()
    return await opening if inspect.isawaitable(opening) else opening


def open_run(advisor: mlrs.Advisor, id_: str, **config: Any) -> mlrs.Run:
    """Return an open run of the threaded client."""
    return advisor.run("task", id=id_, **({"on_existing": "resume", "memory": False} | config)).open()


def until_durable(daemon: Daemon, steps: int) -> None:
    """Wait until a daemon has so many steps of its one run on disk, at most ten seconds."""
    deadline = time.monotonic() + 10.0
    with mlrs.connect(daemon.address, timeout_s=10.0) as advisor:
        while next(advisor.runs()).durable_step < steps - 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
