"""Streams of bytes to either server, on asyncio: the least that a client in Python can spend."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import grpc

from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from performance.shared.messages import check

OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own, as each training process has
    ("grpc.max_receive_message_length", -1),
]
PAGE = 1000
"""Runs opened in a call."""


def channel_to(address: str) -> grpc.aio.Channel:
    """Return a channel with a connection of its own."""
    return grpc.aio.insecure_channel(address, options=OPTIONS)


class Stream:
    """An open stream, which takes and gives bytes."""

    def __init__(self, channel: grpc.aio.Channel, method: str) -> None:
        """Open it."""
        self._call: Any = channel.stream_stream(method)()

    async def exchange(self, message: bytes) -> bytes:
        """Send a message and wait for its answer."""
        await self._call.write(message)
        reply: bytes = await self._call.read()
        return reply

    async def pump(self, messages: Sequence[bytes], depth: int) -> bytes:
        """Send messages, with so many on their way at once; return the answer to the last."""
        reply = b""
        for index, message in enumerate(messages):
            await self._call.write(message)
            if index >= depth - 1:
                reply = await self._call.read()
        for _ in range(min(depth - 1, len(messages))):
            reply = await self._call.read()
        return reply

    async def end(self, entries: int, reply: bytes) -> None:
        """Check the last answer and end the stream in good order."""
        check(reply, entries)
        await self._call.done_writing()
        assert await self._call.read() is grpc.aio.EOF


async def open_run(channel: grpc.aio.Channel, horizon: int) -> int:
    """Open a new run as a training loop does; return its handle."""
    (request,) = _requests(1, horizon)
    stub: Any = AdvisorServiceStub(channel)
    response = await stub.OpenRun(request)
    return int(response.run_handle)


async def open_runs(channel: grpc.aio.Channel, count: int, horizon: int) -> list[int]:
    """Open new runs as a sweep does; return their handles."""
    stub: Any = AdvisorServiceStub(channel)
    requests, handles = _requests(count, horizon), list[int]()
    for start in range(0, count, PAGE):
        page = pb.BatchOpenRunsRequest(requests=requests[start : start + PAGE])
        answer = await stub.BatchOpenRuns(page)
        handles += [response.run_handle for response in answer.responses]
    return handles


def _requests(count: int, horizon: int) -> list[pb.OpenRunRequest]:
    """Ask for new runs under the default model."""
    batch, config = uuid.uuid4().hex, pb.RunConfig(horizon=horizon, num_classes=10)
    return [pb.OpenRunRequest(run_id=f"bench/{batch}/{n}", config=config) for n in range(count)]
