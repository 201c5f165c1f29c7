"""The end of a daemon that nobody uses any more."""

from __future__ import annotations

import asyncio

from mlrs_server.ops import idle_exit
from mlrs_server.ops.idle_exit import unused


class Calls:
    """Calls that a test begins and ends."""

    def __init__(self) -> None:
        self.begun = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self) -> None:
        """Begin a call."""
        self.begun += 1
        self._idle.clear()

    def end(self) -> None:
        """End it."""
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no call is open."""
        await self._idle.wait()


async def test_an_open_call_keeps_it() -> None:
    """As long as a call is open the daemon does not end, however long that is; afterwards it does."""
    calls = Calls()
    calls.begin()
    waiting = asyncio.create_task(unused(calls, after_s=0.01, is_reachable=lambda: True))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    calls.end()
    await asyncio.wait_for(waiting, 10)


async def test_a_short_call_begins_the_time_anew() -> None:
    """A call that begins and ends while the daemon waits for its end begins that time anew."""
    calls, looks = Calls(), 0

    def looked() -> bool:
        nonlocal looks
        looks += 1
        if looks == 1:
            calls.begin()
            calls.end()
        return True

    await asyncio.wait_for(unused(calls, after_s=0.01, is_reachable=looked), 10)
    assert looks >= 2


async def test_it_ends_early_if_nobody_can_connect() -> None:
    """An unused daemon whose socket is gone does not wait for the whole time."""
    patience = idle_exit.LOOK_EVERY_S
    idle_exit.LOOK_EVERY_S = 0.01
    try:
        await asyncio.wait_for(unused(Calls(), after_s=3600, is_reachable=lambda: False), 10)
    finally:
        idle_exit.LOOK_EVERY_S = patience
