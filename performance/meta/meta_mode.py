"""What meta mode costs the others, and gradients on their way to a daemon.

Others: one run is asked for advice in blocks while 100 runs stand still, while they observe at a steady pace,
and while they observe and learn, an update at each step. Gradients: two vectors in pieces of 512 KiB to
AdaptGradients, and to a bare gRPC server that takes the same messages and adds up their bytes, alternately.

    python -m performance.meta.meta_mode [--quick] [--json FILE]
"""

from __future__ import annotations

import asyncio
import multiprocessing
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import uvloop

from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from performance.report import results
from performance.shared import blocks, servers
from performance.shared.messages import Messages
from performance.shared.streams import Stream, channel_to, open_runs

RUNS = 100
"""Runs that learn."""
PERIOD_S = 0.2
"""From a step of each to the next."""
HORIZON = 100_000
"""Steps of the runs: more than are taken."""
BLOCK, ROUNDS = 400, 15
PIECE_BYTES = 512 * 2**10
"""The bytes of each vector in a message."""
SENT_BYTES = 256 * 2**20
"""The bytes of each vector that are sent in a block."""
LARGE_BYTES = 2 * 2**30
"""The bytes of each vector in the stream whose memory is measured."""
STATES = ("still", "observing", "learning")


def measure(quick: bool) -> results.Figures:  # noqa: FBT001  # what every benchmark is given
    """Return both figures."""
    return {"others": _others(quick=quick), "gradients": _gradients(quick=quick)}


# --------------------------------------------------------------------------------------- others


def _others(*, quick: bool) -> dict[str, Any]:
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        daemon = stack.enter_context(servers.daemon())
        crowd = stack.enter_context(_crowd(daemon.address))
        bystander = runner.run(_Bystander.at(daemon))

        def block(state: str) -> blocks.Floats:
            crowd.send(state)
            assert crowd.recv() == state
            return runner.run(bystander.block())

        cases = {state: lambda state=state: block(state) for state in STATES}
        taken = blocks.take_turns(cases, 2 if quick else ROUNDS)
        crowd.send("count")
        updates = crowd.recv()
    middles = {name: blocks.medians(seconds) for name, seconds in taken.items()}
    rows = {
        name: {
            **blocks.percentiles_us(taken[name]),
            "still_ratio": blocks.ratio(middles[name], middles["still"]),
            "observing_ratio": blocks.ratio(middles[name], middles["observing"]),
        }
        for name in STATES
    }
    return {"runs": RUNS, "period_s": PERIOD_S, "updates": updates, "states": rows}


class _Bystander:
    """A run that is asked for advice, step by step."""

    def __init__(self, stream: Stream, messages: Messages) -> None:
        self._stream, self._messages, self._step = stream, messages, 0

    @classmethod
    async def at(cls, server: servers.Server) -> _Bystander:
        """Open the run and a stream."""
        channel = channel_to(server.address)
        handles = await open_runs(channel, 1, HORIZON)
        return cls(Stream(channel, server.method), Messages(handles))

    async def block(self) -> blocks.Floats:
        """Return the seconds of each step of a block."""
        seconds = []
        for _ in range(blocks.SETTLE_CALLS + BLOCK):
            message = self._messages.at(self._step)
            self._step += 1
            start = time.perf_counter()
            await self._stream.exchange(message)
            seconds.append(time.perf_counter() - start)
        return blocks.counted(seconds)


@contextmanager
def _crowd(address: str) -> Iterator[Connection]:
    """Run the runs that learn, in a process of their own; yield what tells them their state."""
    spawn = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_run_crowd, args=(theirs, address), daemon=True)
    process.start()
    try:
        assert ours.recv() == "ready"
        yield ours
    finally:
        ours.close()
        process.join(servers.STOP_S)
        process.kill()


def _run_crowd(pipe: Connection, address: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_Crowd(pipe).run(address))


class _Crowd:
    """Runs in meta mode, each with a stream of its own."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._state, self._updates = pipe, "still", 0

    async def run(self, address: str) -> None:
        """Execute commands until the pipe closes."""
        async with channel_to(address) as channel:
            loops = [asyncio.create_task(self._train(channel, number)) for number in range(RUNS)]
            self._pipe.send("ready")
            while True:
                try:
                    command = await asyncio.to_thread(self._pipe.recv)
                except EOFError:
                    break
                self._state = self._state if command == "count" else command
                self._pipe.send(self._updates if command == "count" else command)
            for loop in loops:
                loop.cancel()

    async def _train(self, channel: grpc.aio.Channel, number: int) -> None:
        stub: Any = AdvisorServiceStub(channel)
        config = pb.RunConfig(horizon=HORIZON, num_classes=10, meta=pb.Meta())
        opened = await stub.OpenRun(pb.OpenRunRequest(run_id=uuid.uuid4().hex, config=config))
        call, step, handle = stub.StreamAdvice(), 0, opened.run_handle
        await asyncio.sleep(PERIOD_S * number / RUNS)
        while True:
            await asyncio.sleep(PERIOD_S)
            if self._state == "still":
                continue
            loss = 2.0 + 0.1 * (step % 7)
            await call.write(
                pb.StreamAdviceRequest(
                    observations=pb.Observations(run_handles=[handle], steps=[step], losses=[loss])
                )
            )
            assert not (await call.read()).advice.errors
            if self._state == "learning":
                update = pb.MetaUpdate(run_handle=handle, step=step, alignment=0.1 * (step % 5 - 2.2))
                await call.write(pb.StreamAdviceRequest(meta_updates=pb.MetaUpdates(updates=[update])))
                assert (await call.read()).meta_results.results[0].updates
                self._updates += 1
            step += 1


# ------------------------------------------------------------------------------------ gradients


def _gradients(*, quick: bool) -> dict[str, Any]:
    size = SENT_BYTES // 16 if quick else SENT_BYTES
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        daemon, sink = stack.enter_context(servers.daemon()), stack.enter_context(_sink())
        senders = {"daemon": _Sender(daemon.address, learns=True), "echo": _Sender(sink, learns=False)}
        cases = {name: lambda one=one: runner.run(one.send(size)) for name, one in senders.items()}
        taken = blocks.take_turns(cases, 2 if quick else ROUNDS)
        before = daemon.rss_bytes()
        runner.run(senders["daemon"].send(size if quick else LARGE_BYTES))
        grown = daemon.rss_bytes() - before
    return {
        "piece_bytes": PIECE_BYTES,
        "sent_bytes": size,
        "bytes_per_s": {name: 2 * size / float(np.median(seconds)) for name, seconds in taken.items()},
        "echo_ratio": blocks.ratio(taken["echo"], taken["daemon"]),  # of throughputs: of times, the other way
        "large_bytes": size if quick else LARGE_BYTES,
        "rss_growth": grown,
    }


class _Sender:
    """A training loop that sends gradients."""

    def __init__(self, address: str, *, learns: bool) -> None:
        self._address, self._learns, self._step = address, learns, -1
        self._run_id = uuid.uuid4().hex

    async def send(self, size: int) -> float:
        """Send two vectors of so many bytes each; return the seconds."""
        async with channel_to(self._address) as channel:
            stub: Any = AdvisorServiceStub(channel)
            if self._learns:
                await self._observe(stub)
            start = time.perf_counter()
            answer = await stub.AdaptGradients(self._messages(size))
            taken = time.perf_counter() - start
            assert bool(answer.result.updates) == self._learns
            return taken

    async def _observe(self, stub: Any) -> None:
        """Have a step whose update the gradients are."""
        self._step += 1
        config = pb.RunConfig(horizon=HORIZON, num_classes=10, meta=pb.Meta())
        await stub.OpenRun(pb.OpenRunRequest(run_id=self._run_id, config=config))
        await stub.Advise(pb.AdviseRequest(run_id=self._run_id, step=self._step, loss=2.0))

    def _messages(self, size: int) -> Iterator[pb.AdaptGradientsRequest]:
        header = pb.AdaptGradientsHeader(
            run_id=self._run_id, step=max(self._step, 0), element_count=size // 4
        )
        yield pb.AdaptGradientsRequest(header=header)
        piece = b"\x00\x00\x80\x3a" * (PIECE_BYTES // 4)  # small enough that no sum overflows
        chunk = pb.GradientChunk(data_type=pb.DATA_TYPE_FLOAT32, validation_gradient=piece, direction=piece)
        message = pb.AdaptGradientsRequest(chunk=chunk)
        for _ in range(size // PIECE_BYTES):
            yield message


@contextmanager
def _sink() -> Iterator[str]:
    """Run a server that takes gradients and adds up their bytes, in a process of its own."""
    command = [sys.executable, "-m", "performance.meta.meta_mode", "--sink"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield servers.address_of(process, Path("/dev/null"))
        finally:
            servers.stop(process)


async def _serve_sink() -> None:
    async def take(messages: Any, _context: Any) -> pb.AdaptGradientsResponse:
        count = 0
        async for message in messages:
            count += len(message.chunk.direction)
        return pb.AdaptGradientsResponse(alignment=count)

    server = grpc.aio.server()
    handler = grpc.stream_unary_rpc_method_handler(
        take, pb.AdaptGradientsRequest.FromString, pb.AdaptGradientsResponse.SerializeToString
    )
    service = grpc.method_handlers_generic_handler("mlrs.v1.AdvisorService", {"AdaptGradients": handler})
    server.add_generic_rpc_handlers([service])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"sink is listening on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    if "--sink" in sys.argv:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as sink_runner:
            sink_runner.run(_serve_sink())
    else:
        results.run(__file__, __doc__, measure)
