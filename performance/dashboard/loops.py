"""Training loops in a process of their own: each observes its run over a stream, at a pace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import uvloop

from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from performance.dashboard.filled import opened
from performance.shared import servers
from performance.shared.messages import Messages
from performance.shared.streams import Stream, channel_to

PACE_S = 0.05
"""The time between two steps of a training loop."""
SPAWN = get_context("spawn")


class Loops:
    """Training loops that run."""

    def __init__(self, ids: Sequence[str], pause_s: Any, steps: Any) -> None:
        self.ids = ids
        self._pause_s, self._steps = pause_s, steps

    @property
    def steps(self) -> int:
        """The steps of all loops together so far."""
        return sum(self._steps)

    def pace(self, pause_s: float) -> None:
        """Set the time between two steps of a loop; 0: as fast as it can."""
        self._pause_s.value = pause_s


@contextmanager
def training(address: str, ids: Sequence[str], pause_s: float = PACE_S) -> Iterator[Loops]:
    """Train runs of these ids for the length of the block, from a step that each has made."""
    loops = Loops(ids, SPAWN.Value("d", pause_s, lock=False), SPAWN.Array("Q", len(ids), lock=False))
    arguments = (address, ids, loops._pause_s, loops._steps)  # noqa: SLF001  # the other end of the same
    process = SPAWN.Process(target=_train, args=arguments, daemon=True)
    process.start()
    try:
        while min(loops._steps) == 0:  # noqa: SLF001  # as above
            assert process.is_alive(), "the training loops ended"
            time.sleep(0.05)
        yield loops
        assert process.is_alive(), "the training loops ended"
    finally:
        process.terminate()
        process.join()


def _train(address: str, ids: Sequence[str], pause_s: Any, steps: Any) -> None:
    async def train() -> None:
        async with channel_to(address) as channel:
            handles = await opened(AdvisorServiceStub(channel), ids)
        loops = [_loop(address, handle, index, pause_s, steps) for index, handle in enumerate(handles)]
        await asyncio.gather(*loops)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(train())


async def _loop(address: str, handle: int, index: int, pause_s: Any, steps: Any) -> None:
    """Take steps for ever, over a connection of its own, as each training process has."""
    messages = Messages([handle])
    async with channel_to(address) as channel:
        stream = Stream(channel, servers.ADVICE_METHOD)
        due = time.monotonic() + index * pause_s.value / len(steps)
        while True:
            await stream.exchange(messages.at(steps[index]))
            steps[index] += 1
            due = max(due + pause_s.value, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
