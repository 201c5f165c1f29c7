"""Cooperative loops on the event loop."""

from __future__ import annotations

import asyncio

from mlrs_server.system.cooperative import AT_ONCE, cooperatively


async def test_other_tasks_run_in_between() -> None:
    """All items come in order, and other tasks run in between; a short list does not yield."""
    others = 0

    async def counting() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(counting())
    assert [item async for item in cooperatively(range(AT_ONCE))] == list(range(AT_ONCE))
    assert others == 0
    assert [item async for item in cooperatively(range(5 * AT_ONCE))] == list(range(5 * AT_ONCE))
    assert others == 4
    task.cancel()
