"""Answers that are kept to be given again, within a bound of bytes; the one used longest ago goes first."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable

ENTRY_BYTES = 500
"""What an entry takes besides its answer, about, in bytes."""


class Cache:
    """Encoded answers by key. A key says everything that the answer depends on.

    Attributes:
        most_bytes: the bound.
        size_bytes: what is kept now.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.size_bytes = 0
        self._answers: OrderedDict[Hashable, bytes] = OrderedDict()
        self._making: dict[Hashable, asyncio.Task[bytes]] = {}

    def get(self, key: Hashable) -> bytes | None:
        """Return an answer; `None`: it is not here."""
        if (answer := self._answers.get(key)) is not None:
            self._answers.move_to_end(key)
        return answer

    def put(self, key: Hashable, answer: bytes) -> None:
        """Keep an answer, unless it is larger than the bound; let others go while there is too much."""
        if (before := self._answers.pop(key, None)) is not None:
            self.size_bytes -= len(before) + ENTRY_BYTES
        self._answers[key] = answer
        self.size_bytes += len(answer) + ENTRY_BYTES
        while self.size_bytes > self.most_bytes:
            _, gone = self._answers.popitem(last=False)
            self.size_bytes -= len(gone) + ENTRY_BYTES

    async def made(self, key: Hashable, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return an answer, which is made once however many ask for it at the same time."""
        if (kept := self.get(key)) is not None:
            return kept
        if (task := self._making.get(key)) is None:
            task = self._making[key] = asyncio.ensure_future(self._make(key, make))
            task.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        return await asyncio.shield(task)  # whoever asks second still wants it when the first one leaves

    async def _make(self, key: Hashable, make: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            answer = await make()
            self.put(key, answer)
            return answer
        finally:
            del self._making[key]
