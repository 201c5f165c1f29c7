"""How long the daemon takes until it advises a run, from the start of its process; and on what.

The first start on a machine, with an empty `NUMBA_CACHE_DIR`, and later ones; to a plain run's first advice,
and to that of a run with rescue, opened as `AdvisedLR` does it. The baseline is a bare
`grpc.aio` server that imports NumPy, to its first answer, that it has no such method. All alternate, with
bytecode that is there, as after an installation by pip. CPU seconds are those of the process until then:
unlike seconds on the clock, they hardly depend on what else the machine does. Those of the process that
compiles the code of rescue beside a first start are not among them.

    python -m performance.daemon.startup [--quick] [--json FILE]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np

import mlrs
from performance.report import results
from performance.shared import blocks, servers

FIRST_STARTS, STARTS = 5, 15
ANSWER_S = 10.0
"""How long a server that listens may take to answer."""
IMPORTS = "import mlrs_cli.daemon.serve, mlrs_server.config, mlrs_server.daemon, mlrs_server.telemetry.logs"
"""What the daemon imports, with one BLAS thread and without collecting garbage, as it does."""
BARE = """
import asyncio, grpc.aio, numpy
async def serve():
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()
asyncio.run(serve())
"""
"""The baseline: a server that serves nothing."""
Start = dict[str, float]
"""The seconds of a start, and those of the process's CPU; where its log says so, what they were spent on."""


def start_of(
    command: Callable[[Path], list[str]], ask: Callable[[str], None], environment: Mapping[str, str]
) -> Start:
    """Start a server and ask it; return what it took until it answered."""
    with tempfile.TemporaryDirectory(prefix="mlrs-bench-") as folder:
        log = Path(folder) / "log"
        with log.open("w", encoding="utf-8") as errors:
            clock, began = time.time(), time.perf_counter()
            with subprocess.Popen(
                command(Path(folder) / "data"),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=dict(environment),
            ) as process:
                try:
                    ask(servers.address_of(process, log))
                    took, cpu = time.perf_counter() - began, servers.cpu_s_of(process.pid)
                finally:
                    servers.stop(process)
        return {"total": took, "cpu": cpu} | _split(log, clock, took)


def first_start(ask: Callable[[str], None], environment: Mapping[str, str]) -> Start:
    """Start a daemon with an empty kernel cache, as `start_of` does."""
    with tempfile.TemporaryDirectory(prefix="mlrs-bench-") as empty:
        return start_of(servers.daemon_command, ask, {**environment, "NUMBA_CACHE_DIR": empty})


def _split(log: Path, clock: float, took: float) -> dict[str, float]:
    """Return what a daemon's start was spent on, by its log: until machine code, that, and the rest."""
    for line in log.read_text(encoding="utf-8").splitlines():
        if '"kernels_ready"' in line and "part" not in (event := json.loads(line)):  # before it listens
            ready = datetime.fromisoformat(event["timestamp"]).timestamp() - clock
            kernels = event["seconds"]
            return {"before_kernels": ready - kernels, "kernels": kernels, "after_kernels": took - ready}
    return {}


def ask_daemon(address: str) -> None:
    """Return once a daemon has opened a plain run and advised its first step."""
    with mlrs.connect(address, timeout_s=ANSWER_S) as advisor, advisor.run("start", horizon=100) as run:
        assert run.next_lr(0, 2.0) > 0
        assert not run.fallback_steps


def ask_rescued(address: str) -> None:
    """Return once a daemon has advised the first step of a run with rescue, opened as `AdvisedLR` does it."""
    with mlrs.connect(address, timeout_s=ANSWER_S) as advisor, advisor.run("start", horizon=100) as run:
        run.describe(default_lr=0.1, rescue=True, optimizer="sgd", momentum=0.9)
        assert run.next_lr(0, 2.0) > 0
        assert not run.fallback_steps


def ask_bare(address: str) -> None:
    """Return once a server has answered that it has no such method."""
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary("/bare/Ask")
        try:
            call(b"", timeout=ANSWER_S)
        except grpc.RpcError as error:
            answered: Any = error
            assert answered.code() is grpc.StatusCode.UNIMPLEMENTED


def reach(code: str, environment: Mapping[str, str]) -> Start:
    """Run some Python; return what it took until it had run, without what its process takes to end."""
    began = time.perf_counter()
    command = [sys.executable, "-c", f"{code}; print(flush=True); input()"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(environment)
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        took, cpu = time.perf_counter() - began, servers.cpu_s_of(process.pid)
        process.communicate("\n")
    return {"total": took, "cpu": cpu}


def measure(quick: bool) -> results.Figures:  # noqa: FBT001  # what every benchmark is given
    """Return the medians of each start, their ratios to the baseline's, and the daemon's split."""
    with tempfile.TemporaryDirectory(prefix="mlrs-bench-") as folder:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"PYTHONPYCACHEPREFIX": f"{folder}/bytecode", "NUMBA_CACHE_DIR": f"{folder}/kernels"}
        bare = partial(start_of, lambda _: [sys.executable, "-c", BARE], ask_bare, environment)
        daemon = partial(start_of, servers.daemon_command, ask_daemon, environment)
        rescued = partial(start_of, servers.daemon_command, ask_rescued, environment)
        imports = f"import gc; gc.disable(); {IMPORTS}"
        one_thread = environment | {"OPENBLAS_NUM_THREADS": "1"}
        cases = {
            "daemon": daemon,
            "rescued": rescued,
            "bare": bare,
            "imports": partial(reach, imports, one_thread),
            "python": partial(reach, "pass", environment),
        }
        later = blocks.take_turns(cases, 2 if quick else STARTS)
        first = {
            "first": partial(first_start, ask_daemon, environment),
            "first_rescued": partial(first_start, ask_rescued, environment),
        }
        firsts = blocks.take_turns(first | {"bare": bare}, 1 if quick else FIRST_STARTS, warm_up=False)
    figures: results.Figures = {name: _summary(firsts[name], firsts["bare"]) for name in first}
    figures |= {name: _summary(starts, later["bare"]) for name, starts in later.items()}
    return figures | {"split": _parts(later["daemon"]), "first_split": _parts(firsts["first"])}


def _summary(starts: list[Start], baseline: list[Start]) -> dict[str, Any]:
    """Return the medians of some starts, and their ratios to the baseline's of the same rounds."""
    seconds, cpu = ([one[part] for one in starts] for part in ("total", "cpu"))
    return {
        "seconds": float(np.median(seconds)),
        "slowest": max(seconds),
        "cpu_s": float(np.median(cpu)),
        "ratio": blocks.ratio(seconds, [one["total"] for one in baseline]),
        "cpu_ratio": blocks.ratio(cpu, [one["cpu"] for one in baseline]),
    }


def _parts(starts: list[Start]) -> dict[str, float]:
    parts = ("before_kernels", "kernels", "after_kernels")
    return {part: float(np.median([one[part] for one in starts])) for part in parts}


if __name__ == "__main__":
    results.run(__file__, __doc__, measure)
