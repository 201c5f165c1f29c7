"""The daemon as the holder of one token sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing

import pytest

from mlrs.errors import DeadlineExceededError
from mlrs_web.daemons import daemon as module
from mlrs_web.daemons.cache import Cache
from mlrs_web.daemons.daemon import HEAVY, Daemon
from mlrs_web.settings import Settings
from tests.support.daemon import Daemon as Running
from tests.web.conftest import STEPS


@pytest.fixture
async def shown(daemon: Running) -> AsyncIterator[Daemon]:
    """A connection to the daemon."""
    connection = Daemon(Settings(target=(daemon.address,)), None, 0, Cache(1000))
    yield connection
    await connection.close()


async def test_downloads_that_stall_hold_nobody_up(shown: Daemon) -> None:
    """Whoever begins to download whole records, and takes no more of them, leaves room for other readers."""
    async with AsyncExitStack() as stack:
        for _ in range(HEAVY):
            chunks = await stack.enter_async_context(aclosing(shown.whole_record("a/done")))
            assert (await anext(chunks)).first_step == 0
        async with asyncio.timeout(20.0), shown.reading() as advisor:
            assert (await advisor.summary("a/done")).end_step == STEPS


async def test_nobody_waits_without_end_to_read(shown: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the calls before it take too long, a call fails as one that the daemon does not answer."""
    monkeypatch.setattr(module, "WAIT_S", 0.0)
    async with AsyncExitStack() as stack:
        for _ in range(HEAVY):
            await stack.enter_async_context(shown.reading())
        with pytest.raises(DeadlineExceededError, match=f"{HEAVY} records are being read"):
            async with asyncio.timeout(20.0), shown.reading():
                pass
    async with shown.reading() as advisor:
        assert (await advisor.summary("a/done")).end_step == STEPS


async def test_a_download_keeps_its_connection_in_use(shown: Daemon) -> None:
    """Each part of a record that is taken counts as a use, so that a long download is not ended as unused."""
    chunks = shown.whole_record("a/done")
    async with aclosing(chunks):
        assert await anext(chunks)
        shown.used, before = 0.0, time.monotonic()
        assert [len(chunk.losses) async for chunk in chunks] == [STEPS]
    assert shown.used >= before
