"""How long the daemon takes to be healthy, from the start of its process; and what it spends that on.

The baseline is the bare echo, to its first answer. Both say on their first line where they listen, and are
asked then. Machine code and bytecode are cached: the first start after an installation takes longer.

    python -m performance.daemon.startup [--quick] [--json FILE]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from performance.report import results
from performance.shared import blocks, servers
from performance.shared.messages import Messages, check

STARTS = 10
ANSWER_S = 10.0
"""How long a server that listens may take to answer."""
IMPORTS = "import mlrs_cli.daemon.serve, mlrs_server.config, mlrs_server.daemon, mlrs_server.telemetry.logs"
"""What the daemon imports, with one BLAS thread, as it does."""


def start_of(command: Callable[[Path], list[str]], ask: Callable[[grpc.Channel], None]) -> dict[str, float]:
    """Start a server and ask it; return the seconds until it answered, and how its log splits them."""
    with tempfile.TemporaryDirectory(prefix="mlrs-bench-") as folder:
        log = Path(folder) / "log"
        with log.open("w", encoding="utf-8") as errors:
            clock, began = time.time(), time.perf_counter()
            with subprocess.Popen(
                command(Path(folder) / "data"), stdout=subprocess.PIPE, stderr=errors, text=True
            ) as process:
                try:
                    with grpc.insecure_channel(servers.address_of(process, log)) as channel:
                        ask(channel)
                        took = time.perf_counter() - began
                finally:
                    servers.stop(process)
        return {"total": took} | _split(log, clock, took)


def _split(log: Path, clock: float, took: float) -> dict[str, float]:
    """Return what a daemon's start was spent on, by its log: until machine code, that, and the rest."""
    for line in log.read_text(encoding="utf-8").splitlines():
        if '"kernels_ready"' in line:
            event = json.loads(line)
            ready = datetime.fromisoformat(event["timestamp"]).timestamp() - clock
            kernels = event["seconds"]
            return {"before_kernels": ready - kernels, "kernels": kernels, "after_kernels": took - ready}
    return {}


def ask_daemon(channel: grpc.Channel) -> None:
    """Return once a daemon is healthy."""
    answer = HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=ANSWER_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def ask_echo(channel: grpc.Channel) -> None:
    """Return once an echo has answered."""
    call: Any = channel.stream_stream(servers.ECHO_METHOD)
    check(next(call(iter([Messages([1]).at(0)]), timeout=ANSWER_S)), 1)


def reach(code: str) -> dict[str, float]:
    """Run some Python; return the seconds until it has run, without what its process takes to end."""
    began = time.perf_counter()
    command = [sys.executable, "-c", f"{code}; print(flush=True)"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        return {"total": time.perf_counter() - began}


def measure(quick: bool) -> results.Figures:  # noqa: FBT001  # what every benchmark is given
    """Return the median seconds of each start, and the daemon's split."""
    taken = blocks.take_turns(
        {
            "daemon": partial(start_of, servers.daemon_command, ask_daemon),
            "echo": partial(start_of, lambda _: servers.echo_command(), ask_echo),
            "imports": partial(reach, IMPORTS),
            "python": partial(reach, "pass"),
        },
        2 if quick else STARTS,
    )
    totals = {name: [one["total"] for one in starts] for name, starts in taken.items()}
    figures: dict[str, Any] = {
        name: {
            "seconds": float(np.median(values)),
            "slowest": max(values),
            "ratio": blocks.ratio(values, totals["echo"]),
        }
        for name, values in totals.items()
    }
    split = {
        part: float(np.median([one[part] for one in taken["daemon"]]))
        for part in ("before_kernels", "kernels", "after_kernels")
    }
    return figures | {"split": split}


if __name__ == "__main__":
    results.run(__file__, __doc__, measure)
