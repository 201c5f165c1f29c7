"""What a step costs a job whose ranks all report: from the first report to the answer that the last reads.

Each rank has a connection and a stream of its own, all in one process here, on one event loop. The daemon
gathers and stores as shipped; it is compared with an echo of as many streams, which waits for nobody. A
second case sends the losses of all ranks in one message, as a process with all ranks would.

    python -m performance.advice.ranks [--quick] [--json FILE]
"""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import ExitStack
from typing import Any

import numpy as np
import uvloop

from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from performance.report import results
from performance.shared import blocks, servers
from performance.shared.messages import check
from performance.shared.streams import Stream, channel_to

SIZES = (1, 4, 16, 64, 256)
"""Ranks."""
ROUNDS, STEPS = 9, 60
"""Blocks of each case, and the steps of a block."""


class RankJob:
    """Ranks that take their steps together, against the daemon or an echo."""

    def __init__(self, runner: asyncio.Runner, server: servers.Server, ranks: int, *, together: bool) -> None:
        """Open the run and a stream for each rank, or one stream for all."""
        self._runner, self._server, self._ranks, self._together = runner, server, ranks, together
        self._step = 0
        runner.run(self._open())

    async def _open(self) -> None:
        count = 1 if self._together else self._ranks
        self._channels = [channel_to(self._server.address) for _ in range(count)]
        self._handle = 1 << 32
        if self._server.name == "daemon":
            config = pb.RunConfig(num_classes=10, ranks=pb.Ranks())
            request = pb.OpenRunRequest(
                run_id=f"bench/{uuid.uuid4().hex}", config=config, world_size=self._ranks
            )
            stub: Any = AdvisorServiceStub(self._channels[0])
            self._handle = (await stub.OpenRun(request)).run_handle
        self._streams = [Stream(channel, self._server.method) for channel in self._channels]

    def _messages(self, step: int) -> list[bytes]:
        ranks = list(range(self._ranks))
        parts = [ranks] if self._together else [[rank] for rank in ranks]
        return [
            pb.StreamAdviceRequest(
                observations=pb.Observations(
                    run_handles=[self._handle] * len(part),
                    steps=[step] * len(part),
                    losses=[2.3 + 0.001 * rank - 0.0001 * step for rank in part],
                    rank_columns=pb.RankColumns(ranks=part, sample_counts=[32.0] * len(part)),
                )
            ).SerializeToString()
            for part in parts
        ]

    def block(self) -> dict[str, float]:
        """Take steps; return the median seconds of one, and the server's CPU seconds of one."""
        messages = [self._messages(self._step + index) for index in range(STEPS)]
        self._step += STEPS
        used = self._server.cpu_s()
        seconds = self._runner.run(self._take(messages))
        return {"step_s": float(np.median(seconds)), "server_s": (self._server.cpu_s() - used) / STEPS}

    async def _take(self, messages: list[list[bytes]]) -> list[float]:
        seconds = []
        for of_step in messages:
            start = time.perf_counter()
            exchanges = map(Stream.exchange, self._streams, of_step)
            self._replies = await asyncio.gather(*exchanges)
            seconds.append(time.perf_counter() - start)
        return seconds

    def close(self) -> None:
        """Check that the last answers are one, and hang up."""
        self._runner.run(self._close())

    async def _close(self) -> None:
        entries = self._ranks if self._together else 1
        if self._server.name == "daemon":
            answers = map(pb.StreamAdviceResponse.FromString, self._replies)
            assert len({rate for answer in answers for rate in answer.advice.learning_rates}) == 1
        for stream, reply in zip(self._streams, self._replies, strict=True):
            check(reply, entries)
            await stream.end(entries, reply)
        for channel in self._channels:
            await channel.close()


def of_size(runner: asyncio.Runner, pair: list[servers.Server], ranks: int, rounds: int) -> dict[str, Any]:
    """Return the figures of so many ranks."""
    jobs = {
        f"{server.name}/{'one' if together else 'each'}": RankJob(runner, server, ranks, together=together)
        for server in pair
        for together in (False, True)
    }
    taken = blocks.take_turns({name: job.block for name, job in jobs.items()}, rounds)
    for job in jobs.values():
        job.close()
    return {name: _figures(taken, name) for name in taken}


def _figures(taken: dict[str, list[dict[str, float]]], name: str) -> dict[str, Any]:
    """Return a case's medians, and its ratios to the echo's of the same streams."""
    echo = f"echo/{name.partition('/')[2]}"
    columns = {case: {key: [one[key] for one in some] for key in some[0]} for case, some in taken.items()}
    return {
        "step_us": float(np.median(columns[name]["step_s"])) * 1e6,
        "server_us": float(np.median(columns[name]["server_s"])) * 1e6,
        "step_ratio": blocks.ratio(columns[name]["step_s"], columns[echo]["step_s"]),
        "server_ratio": blocks.ratio(columns[name]["server_s"], columns[echo]["server_s"]),
    }


def measure(quick: bool) -> results.Figures:  # noqa: FBT001  # what every benchmark is given
    """Return the figures of each number of ranks."""
    servers.allow_many_connections()
    with ExitStack() as stack:
        pair = [stack.enter_context(servers.daemon()), stack.enter_context(servers.echo())]
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        of_size(runner, pair, 1, 1)  # a warm-up
        return {str(size): of_size(runner, pair, size, 1 if quick else ROUNDS) for size in SIZES}


if __name__ == "__main__":
    results.run(__file__, __doc__, measure)
