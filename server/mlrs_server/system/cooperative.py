"""Long loops on the event loop that yield to other tasks, so that observations do not wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")
AT_ONCE = 64
"""Items between two yields to the event loop: one or two milliseconds of work."""


async def cooperatively(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield the items in order, and let other tasks of the event loop run after every `AT_ONCE` of them."""
    for index, item in enumerate(items):
        if index and index % AT_ONCE == 0:
            await asyncio.sleep(0)
        yield item
