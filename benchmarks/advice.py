"""What advice costs: against a bare gRPC echo of the same messages, and the kernel against torch.

Everything is measured in one run, in short blocks that take turns, so that a ratio compares
moments close together: machines are noisy, ratios carry.

    python benchmarks/advice.py [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import queue
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import echo_server
import grpc
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import mlrs_client
from mlrs_core.architectures.drift import DriftSpec
from mlrs_core.architectures.paper import PaperSpec
from mlrs_core.architectures.paper.reference import PaperNet, weights_of
from mlrs_core.config import RunConfig
from mlrs_core.policy import Policy, table_of
from mlrs_proto.v1 import advisor_pb2 as pb
from mlrs_proto.v1.advisor_pb2_grpc import AdvisorServiceStub

BLOCK = 200
"""Calls in a block."""
WORK_S = 0.005
"""The work that overlapped advice hides behind."""


@contextmanager
def process(*command: str) -> Iterator[str]:
    """Run a server; yield the address that its first line ends with."""
    with subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split()[-1]
        server.terminate()


def stream_caller(call: Any) -> Callable[[pb.StreamAdviceRequest], Any]:
    """Return a function that sends a message on a stream of its own and waits for the answer."""
    requests: queue.SimpleQueue[pb.StreamAdviceRequest] = queue.SimpleQueue()
    responses = call(iter(requests.get, None))

    def send(message: pb.StreamAdviceRequest) -> Any:
        requests.put(message)
        return next(responses)

    return send


def matmul_for(seconds: float) -> Callable[[], None]:
    """Return work without the interpreter lock that takes about so long."""
    matrix = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    start = time.perf_counter()
    for _ in range(20):
        matrix @ matrix
    times = max(1, round(seconds / ((time.perf_counter() - start) / 20)))

    def work() -> None:
        for _ in range(times):
            matrix @ matrix

    return work


class Cases:
    """What is timed; each returns the seconds of the training thread for one step."""

    def __init__(self, stack: ExitStack, advisor_address: str, echo_address: str) -> None:
        channel = stack.enter_context(grpc.insecure_channel(echo_address))
        self._echo = stream_caller(
            channel.stream_stream(
                echo_server.METHOD,
                pb.StreamAdviceRequest.SerializeToString,
                pb.StreamAdviceResponse.FromString,
            )
        )
        channel = stack.enter_context(grpc.insecure_channel(advisor_address))
        stub = AdvisorServiceStub(channel)
        config = pb.RunConfig(horizon=1_000_000, num_classes=10)
        request = pb.CreateRunRequest(run_id=f"bench/{uuid.uuid4()}", config=config)
        self._handle = stub.CreateRun(request).run_handle
        self._advise = stream_caller(stub.StreamAdvice)
        advisor = stack.enter_context(mlrs_client.connect(advisor_address, timeout_s=30.0))
        self._run = stack.enter_context(
            advisor.run(f"bench/{uuid.uuid4()}", horizon=1_000_000, num_classes=10)
        )
        self._raw_step = self._step = self._echo_step = 0
        self._work = matmul_for(WORK_S)

    def echo(self) -> float:
        """Time a bare echo on a bare stream."""
        start = time.perf_counter()
        self._echo(pb.StreamAdviceRequest(run_handles=[self._handle], steps=[self._echo_step], losses=[2.3]))
        self._echo_step += 1
        return time.perf_counter() - start

    def advice_raw(self) -> float:
        """Time advice on a bare stream: what the daemon adds to the echo."""
        start = time.perf_counter()
        self._advise(pb.StreamAdviceRequest(run_handles=[self._handle], steps=[self._raw_step], losses=[2.3]))
        self._raw_step += 1
        return time.perf_counter() - start

    def advice(self) -> float:
        """Time `run.next_lr`: what a training loop sees that waits."""
        start = time.perf_counter()
        self._run.next_lr(self._step, 2.3)
        self._step += 1
        return time.perf_counter() - start

    def overlapped(self) -> float:
        """Time `observe` and `lr` around work without the interpreter lock."""
        start = time.perf_counter()
        pending = self._run.observe(self._step, 2.3)
        observed = time.perf_counter()
        self._step += 1
        self._work()
        worked = time.perf_counter()
        pending.lr()
        return observed - start + time.perf_counter() - worked


def measure_wire(rounds: int) -> dict[str, dict[str, float]]:
    """Return p50, p90, p99 of each case in µs, and the ratios to the echo."""
    with ExitStack() as stack:
        data_dir = stack.enter_context(tempfile.TemporaryDirectory())
        serve = ["-m", "mlrs_cli", "serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir]
        advisor = stack.enter_context(process(*serve))
        echo = stack.enter_context(process(str(Path(__file__).with_name("echo_server.py"))))
        cases = Cases(stack, advisor, echo)
        kinds = {
            "echo": (cases.echo, BLOCK),
            "advice, bare stream": (cases.advice_raw, BLOCK),
            "advice, next_lr": (cases.advice, BLOCK),
            "advice, overlapped": (cases.overlapped, BLOCK // 4),
        }
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for round_ in range(rounds + 1):
            for name, (case, count) in kinds.items():
                block = [case() for _ in range(count)]
                if round_:  # the first is a warm-up
                    times[name] += block
    return {name: _percentiles(values) for name, values in times.items()}


def _percentiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{level}": float(np.percentile(seconds, level)) * 1e6 for level in (50, 90, 99)}


def measure_kernels(repeats: int = 200) -> dict[str, dict[str, float]]:
    """Return µs per run of a step, by batch size: the paper's torch module, and each kernel."""
    torch.set_num_threads(1)
    paper, drift = PaperSpec(), DriftSpec()
    net, rng = PaperNet(paper), np.random.default_rng(0)
    weights = {
        name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in drift.weight_shapes().items()
    }
    policies = {"paper": paper.policy([weights_of(net)]), "drift": drift.policy([weights])}
    return {str(size): _kernel_times(net, policies, size, repeats) for size in (1, 64, 1024)}


def _kernel_times(net: PaperNet, policies: dict[str, Policy], size: int, repeats: int) -> dict[str, float]:
    table, rows = table_of([RunConfig(scale=1.0, horizon=1000)] * size), np.arange(size)
    losses, steps, lrs = np.full(size, 2.3), np.zeros(size, np.int64), np.empty(size)
    tensor, state = torch.full((size,), 2.3), net.init_state(size)

    def with_torch() -> None:
        with torch.no_grad():
            net(tensor, state)

    def with_kernel(policy: Policy) -> Callable[[], None]:
        states = policy.init_state(size)
        policy.advance(states, table, rows, steps, losses, lrs)  # the first step sets scales
        return lambda: policy.advance(states, table, rows, steps, losses, lrs)

    calls = {"torch": with_torch, **{name: with_kernel(policy) for name, policy in policies.items()}}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) * 1e6 / size for name, values in times.items()}


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/advice.json"))
    arguments = parser.parse_args()
    wire, kernel = measure_wire(arguments.rounds), measure_kernels()
    console = Console()
    table = Table("one stream, one run", "p50 µs", "p90 µs", "p99 µs", "p50 / echo", "p99 / echo")
    for name, row in wire.items():
        ratios = [f"{row[level] / wire['echo'][level]:.2f}" for level in ("p50", "p99")]
        table.add_row(name, *(f"{row[level]:.0f}" for level in ("p50", "p90", "p99")), *ratios)
    console.print(table)
    table = Table(
        "runs in a batch", "torch module, µs a run", "paper kernel", "drift kernel", "paper / torch"
    )
    for size, row in kernel.items():
        figures = [f"{row[name]:.2f}" for name in ("torch", "paper", "drift")]
        table.add_row(size, *figures, f"{row['paper'] / row['torch']:.2f}")
    console.print(table)
    machine = {"python": platform.python_version(), "grpcio": grpc.__version__, "cores": os.cpu_count()}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": machine, "wire_us": wire, "kernel_us_per_run": kernel}
    arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    console.print(f"saved to {arguments.json}")


if __name__ == "__main__":
    main()
