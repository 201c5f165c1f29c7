"""A daemon with many short runs and one of very many steps, none of them in its memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from performance.shared import servers
from performance.shared.messages import losses_of
from performance.shared.streams import channel_to

LONG, SHORT = "long/run", "short/"
"""The id of the long run, and how those of the others begin."""
SHORT_STEPS = 32
"""The steps of a short run."""
ENTRIES = 8192
"""Observations in a message."""
PAGE = 1000
"""Runs opened in a call."""


@contextmanager
def filled_folder(runner: asyncio.Runner, runs: int, steps: int) -> Iterator[Path]:
    """Yield a data folder with so many short runs, and a long one of so many steps."""
    with TemporaryDirectory(prefix="mlrs-bench-") as folder:
        data = Path(folder) / "data"
        with servers.daemon("--data-dir", str(data)) as daemon:
            runner.run(_fill(daemon.address, runs, steps))
        yield data


async def opened(stub: Any, ids: Sequence[str]) -> list[int]:
    """Open runs of a cosine schedule with a tag; return their handles."""
    config = pb.RunConfig(schedule=pb.Schedule(base_lr=0.1, cosine=pb.Schedule.Cosine()), horizon=2_000_000)
    handles = list[int]()
    for first in range(0, len(ids), PAGE):
        requests = [
            pb.OpenRunRequest(run_id=run_id, config=config, tags={"kind": "benchmark"})
            for run_id in ids[first : first + PAGE]
        ]
        answer = await stub.BatchOpenRuns(pb.BatchOpenRunsRequest(requests=requests))
        handles += [response.run_handle for response in answer.responses]
    return handles


async def _fill(address: str, runs: int, steps: int) -> None:
    async with channel_to(address) as channel:
        stub: Any = AdvisorServiceStub(channel)
        (handle,) = await opened(stub, [LONG])
        entries = [np.full(steps, handle, np.uint64), np.arange(steps)]
        await _observe(stub, *entries)
        handles = await opened(stub, [f"{SHORT}{number:05}" for number in range(runs)])
        await _observe(
            stub, np.tile(np.array(handles, np.uint64), SHORT_STEPS), np.repeat(np.arange(SHORT_STEPS), runs)
        )


async def _observe(stub: Any, handles: Any, steps: Any) -> None:
    losses = np.resize(losses_of(1).ravel(), len(steps)) / (1.0 + np.log1p(steps))
    stream = stub.StreamAdvice()
    for first in range(0, len(steps), ENTRIES):
        some = slice(first, first + ENTRIES)
        observations = pb.Observations(run_handles=handles[some], steps=steps[some], losses=losses[some])
        await stream.write(pb.StreamAdviceRequest(observations=observations))
        answer = await stream.read()
        assert not answer.advice.errors, answer.advice.errors[0]
    await stream.done_writing()
