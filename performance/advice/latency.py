"""What advice costs a lone training loop: one stream, one run, against a bare echo and work in process.

python -m performance.advice.latency [--quick] [--json FILE]
"""

from __future__ import annotations

import queue
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import grpc
import numpy as np
import torch
from threadpoolctl import threadpool_limits

import mlrs
from mlrs_core.networks.paper import PaperSpec
from mlrs_core.networks.paper.reference import net_with
from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from performance.report import results
from performance.shared import blocks, servers
from performance.shared.in_process import PAPER, shipped_model

BLOCK = 200
"""Calls in a block."""
OVERLAPPED_BLOCK = 50
"""Calls in a block where each call waits for work."""
WORK_S = 0.005
"""The work that overlapped advice hides behind."""
HORIZON = 10_000
"""Steps of the runs: about what they take."""
LOSS = 2.3
Case = Callable[[], blocks.Floats]
"""Times a block; returns the training thread's seconds for each step."""


class Wire:
    """What is timed over a wire."""

    def __init__(self, stack: ExitStack, *, unix: bool) -> None:
        """Start both servers, and connect."""
        daemon = stack.enter_context(servers.daemon(unix=unix))
        channel = stack.enter_context(grpc.insecure_channel(daemon.address))
        stub = AdvisorServiceStub(channel)
        config = pb.RunConfig(horizon=HORIZON, num_classes=10)
        created = stub.OpenRun(pb.OpenRunRequest(run_id=f"bench/{uuid.uuid4()}", config=config))
        self._bare = Bare(stub.StreamAdvice, created.run_handle)
        echo = stack.enter_context(servers.echo(unix=unix))
        channel = stack.enter_context(grpc.insecure_channel(echo.address))
        call = channel.stream_stream(
            echo.method, pb.StreamAdviceRequest.SerializeToString, pb.StreamAdviceResponse.FromString
        )
        self._echo = Bare(call, created.run_handle)
        advisor = stack.enter_context(mlrs.connect(daemon.address, timeout_s=30.0))
        self._run = stack.enter_context(advisor.run("bench", horizon=HORIZON, num_classes=10))
        self._step = 0
        self._work = matmul_for(WORK_S)

    def cases(self) -> dict[str, Case]:
        """Return what is timed, by name."""
        return {
            "echo": partial(blocks.times, self._echo.exchange, BLOCK),
            "bare": partial(blocks.times, self._bare.exchange, BLOCK),
            "next_lr": partial(blocks.times, self._next_lr, BLOCK),
            "overlapped": partial(blocks.times, self._overlapped, OVERLAPPED_BLOCK),
        }

    def _next_lr(self) -> None:
        """Take a step: what a training loop sees that waits."""
        self._run.next_lr(self._step, LOSS)
        self._step += 1

    def _overlapped(self) -> float:
        """Take a step around work; return the seconds of `observe` and `lr`."""
        start = time.perf_counter()
        pending = self._run.observe(self._step, LOSS)
        observed = time.perf_counter()
        self._step += 1
        self._work()
        worked = time.perf_counter()
        pending.lr()
        return observed - start + time.perf_counter() - worked


class Bare:
    """A stream of gRPC's threaded client with nothing around it, and one run on it."""

    def __init__(self, call: Any, handle: int) -> None:
        """Open the stream."""
        self._requests: queue.SimpleQueue[pb.StreamAdviceRequest] = queue.SimpleQueue()
        self._responses = call(iter(self._requests.get, None))
        self._handle, self._step = handle, 0

    def exchange(self) -> None:
        """Take a step and wait for the answer."""
        self._requests.put(
            pb.StreamAdviceRequest(
                observations=pb.Observations(run_handles=[self._handle], steps=[self._step], losses=[LOSS])
            )
        )
        response = next(self._responses)
        assert not response.advice.errors, response
        self._step += 1


def matmul_for(seconds: float) -> Callable[[], None]:
    """Return work without the interpreter lock that takes about so long."""
    matrix = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    product = np.empty_like(matrix)

    def once() -> None:
        np.matmul(matrix, matrix, out=product)

    repeats = max(1, round(seconds / float(np.median(blocks.times(once, 50)))))

    def work() -> None:
        for _ in range(repeats):
            once()

    return work


def in_process() -> dict[str, Case]:
    """Return what is timed without a wire: the paper's network in torch, and one of torch's schedules."""
    model = shipped_model(PAPER)
    assert isinstance(model.architecture, PaperSpec)
    net = net_with(model.architecture, model.snapshots[0])
    loss, state = torch.full((1,), LOSS), net.init_state(1)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, HORIZON)
    optimizer.step()

    def forward() -> None:
        nonlocal state
        with torch.no_grad():
            _, state = net(loss, state)

    return {
        "torch_forward": partial(blocks.times, forward, BLOCK),
        "torch_cosine": partial(blocks.times, schedule.step, BLOCK),
    }


def measure(quick: bool) -> results.Figures:  # noqa: FBT001  # what every benchmark is given
    """Return percentiles of each case in µs, and ratios to the echo on the same transport."""
    torch.set_num_threads(1)
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(1))  # a core stays free for the servers
        cases = {f"local/{name}": case for name, case in in_process().items()}
        for transport in ("tcp", "unix"):
            wire = Wire(stack, unix=transport == "unix")
            cases |= {f"{transport}/{name}": case for name, case in wire.cases().items()}
        taken = blocks.take_turns(cases, 3 if quick else 30)
    return {name: _figures(taken, name) for name in taken}


def _figures(taken: dict[str, list[blocks.Floats]], name: str) -> dict[str, Any]:
    """Return the figures of a case; in process, the baseline is the echo on loopback."""
    transport = name.partition("/")[0].replace("local", "tcp")
    echo = taken[f"{transport}/echo"]
    own, base = blocks.percentiles_us(taken[name]), blocks.percentiles_us(echo)
    return {
        **own,
        "p50_ratio": blocks.ratio(blocks.medians(taken[name]), blocks.medians(echo)),
        "p99_ratio": own["p99_us"] / base["p99_us"],
        "tcp_ratio": blocks.ratio(
            blocks.medians(taken[name]), blocks.medians(taken[name.replace("unix/", "tcp/")])
        ),
    }


if __name__ == "__main__":
    results.run(__file__, __doc__, measure)
