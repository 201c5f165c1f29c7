"""Fixtures: a daemon of this process, and advisors of it in both flavours."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import mlrs
import mlrs.aio
from tests.client.fake_daemon import FakeDaemon


async def done(result: Any) -> Any:
    """Return the result of a call of either flavour."""
    return await result if inspect.isawaitable(result) else result


async def until(condition: Callable[[], object]) -> None:
    """Wait until something holds, at most ten seconds."""
    async with asyncio.timeout(10.0):
        while not condition():  # noqa: ASYNC110 # other threads make it hold
            await asyncio.sleep(0.002)


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    """A daemon that lives as long as the test."""
    daemon = FakeDaemon()
    yield daemon
    daemon.stop()


@pytest.fixture
def advisor(daemon: FakeDaemon) -> Iterator[mlrs.Advisor]:
    """An advisor of it, with a deadline that slow machines meet."""
    with mlrs.connect(daemon.target, timeout_s=10.0) as advisor:
        yield advisor


@pytest.fixture(params=["threads", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Any:
    """`connect` of a flavour."""
    return mlrs.connect if request.param == "threads" else mlrs.aio.connect


@pytest.fixture
async def either(connect: Any, daemon: FakeDaemon) -> AsyncIterator[Any]:
    """An advisor of a flavour."""
    advisor = connect(daemon.target, timeout_s=10.0)
    yield advisor
    await done(advisor.close())
