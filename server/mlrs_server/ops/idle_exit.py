"""The end of a daemon that nobody uses any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

log = structlog.get_logger()

LOOK_EVERY_S = 2.0
"""How often the socket is looked for, in seconds."""


class Calls(Protocol):
    """What counts a daemon's calls."""

    begun: int
    """The number of calls that have begun."""

    async def idle(self) -> None:
        """Wait until no call is open."""


async def unused(calls: Calls, *, after_s: float, is_reachable: Callable[[], bool]) -> None:
    """Wait until no call or stream has been open for so many seconds, or for a moment once nobody can call.

    Args:
        calls: counts the calls.
        after_s: how long no call may be open.
        is_reachable: whether anybody can connect: not after the file of a unix socket was removed, as it
            is with the folder of a login session.
    """
    clock = asyncio.get_running_loop().time
    while True:
        await calls.idle()
        begun, until = calls.begun, clock() + after_s
        while (left_s := until - clock()) > 0 and calls.begun == begun:
            await asyncio.sleep(min(left_s, LOOK_EVERY_S))
            if not is_reachable() and calls.begun == begun:
                log.warning("unreachable")
                return
        if calls.begun == begun:
            log.info("unused", after_s=after_s)
            return
