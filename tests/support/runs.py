"""Runs by their ids, as most tests want them: created, or gone on with, whichever applies; without memory."""

from __future__ import annotations

import inspect
from typing import Any

import mlrs


async def opened(advisor: Any, id_: str, **config: Any) -> Any:
    """Return an open run of an advisor of either flavour."""
    run = advisor.run("task", id=id_, **({"on_existing": "resume", "memory": False} | config))
    run = await run if inspect.isawaitable(run) else run
    opening = run.open()
    return await opening if inspect.isawaitable(opening) else opening


def open_run(advisor: mlrs.Advisor, id_: str, **config: Any) -> mlrs.Run:
    """Return an open run of the threaded client."""
    return advisor.run("task", id=id_, **({"on_existing": "resume", "memory": False} | config)).open()
