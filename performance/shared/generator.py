"""The load generator: processes that stand for many training processes, a connection and a stream each.

Each stream sends an observation, waits for the answer, and sends the next. All of a message but its step is
made beforehand, and answers are counted, not read, save each stream's last.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import uvloop

from performance.shared import servers
from performance.shared.blocks import Floats
from performance.shared.http2 import RawStream
from performance.shared.messages import Messages, check
from performance.shared.streams import Stream, channel_to, open_run, open_runs

HORIZON = 100_000
"""Steps of the runs: more than are taken."""
AT_ONCE = 64
"""Streams opened at a time."""


@dataclass(frozen=True)
class Sent:
    """What came of a block."""

    latencies: Floats
    """Seconds from each observation to its answer."""
    cpu_s: float
    """What the generator took."""


class _Loop:
    """A training process: a stream with one run."""

    def __init__(self, stream: RawStream, handle: int) -> None:
        self._stream = stream
        self._messages = Messages([handle])
        self._step = 0
        self.reply = b""
        self.close = stream.close

    async def step(self) -> float:
        """Take a step; return its seconds."""
        message = self._messages.at(self._step)
        self._step += 1
        start = time.perf_counter()
        self.reply = await self._stream.exchange(message)
        return time.perf_counter() - start

    async def work(self, until: float) -> list[float]:
        """Take steps until some time; return the seconds of each."""
        taken = []
        while time.perf_counter() < until:
            taken.append(await self.step())
        return taken


class _Worker:
    """What a generator's process does at a command."""

    def __init__(self) -> None:
        self._loops: dict[str, list[_Loop]] = {}

    async def open(self, server: servers.Server, streams: int) -> None:
        """Connect so many streams to a server; each takes its first step."""
        handles = await _handles(server, streams)
        loops = self._loops[server.name] = [
            _Loop(await RawStream.open(server.address, server.method), handle) for handle in handles
        ]
        for start in range(0, streams, AT_ONCE):
            await asyncio.gather(*(loop.step() for loop in loops[start : start + AT_ONCE]))

    async def run(self, server: servers.Server, seconds: float) -> Sent:
        """Keep all streams of a server busy for so long."""
        loops = self._loops[server.name]
        cpu_s, until = time.process_time(), time.perf_counter() + seconds
        taken = await asyncio.gather(*(loop.work(until) for loop in loops))
        cpu_s = time.process_time() - cpu_s
        for loop in loops:
            check(loop.reply, 1)
        return Sent(np.concatenate(taken), cpu_s)

    async def close(self, server: servers.Server) -> None:
        """Hang up on a server."""
        for loop in self._loops.pop(server.name):
            loop.close()

    async def join(self, server: servers.Server, seconds: float) -> list[float]:
        """Come as a new training process, again and again for so long; return when advice first came.

        The echo opens no runs: there a second stream, and an answer on it, stand for that call.
        """
        until, taken = time.perf_counter() + seconds, []
        while time.perf_counter() < until:
            start = time.perf_counter()
            channel = channel_to(server.address)
            if server.name == "daemon":
                handle = await open_run(channel, HORIZON)
            else:
                handle = 1
                await Stream(channel, server.method).exchange(Messages([handle]).at(0))
            reply = await Stream(channel, server.method).exchange(Messages([handle]).at(0))
            taken.append(time.perf_counter() - start)
            check(reply, 1)
            await channel.close()
        return taken


async def _handles(server: servers.Server, count: int) -> list[int]:
    """Return the handles of new runs; the echo takes any."""
    if server.name != "daemon":
        return list(range(1, count + 1))
    async with channel_to(server.address) as channel:
        return await open_runs(channel, count, HORIZON)


class Generator:
    """A worker in a process of its own."""

    def __init__(self, pipe: Connection) -> None:
        """`pipe` leads there."""
        self._pipe = pipe

    def start(self, task: str, *arguments: Any) -> None:
        """Have it begin a task: a method of `_Worker`."""
        self._pipe.send((task, arguments))

    def result(self) -> Any:
        """Wait for the end of its task; return what it returned."""
        result = self._pipe.recv()
        if isinstance(result, BaseException):
            raise result
        return result

    def do(self, task: str, *arguments: Any) -> Any:
        """Have it do a task."""
        self.start(task, *arguments)
        return self.result()


@contextmanager
def generator() -> Iterator[Generator]:
    """Run a generator."""
    spawn = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_obey, args=(theirs,), daemon=True)
    process.start()
    try:
        yield Generator(ours)
    finally:
        ours.close()
        process.join(servers.STOP_S)
        process.kill()


def _obey(pipe: Connection) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_obey_on_loop(pipe))


async def _obey_on_loop(pipe: Connection) -> None:
    """Do what comes down a pipe until it is closed."""
    worker = _Worker()
    while True:
        try:
            task, arguments = await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        except EOFError:
            return
        try:
            pipe.send(await getattr(worker, task)(*arguments))
        except Exception as error:  # noqa: BLE001  # it is raised again where the task came from
            pipe.send(RuntimeError(repr(error)))
