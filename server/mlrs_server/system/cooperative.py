"""Work on many runs, in turns with everything else on the event loop: no observation waits for all of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")
AT_ONCE = 64
"""Runs that are worked on before others get a turn: a millisecond or two."""


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield items, and let whatever else waits go on in between."""
    for index, item in enumerate(items):
        if index and index % AT_ONCE == 0:
            await asyncio.sleep(0)
        yield item
