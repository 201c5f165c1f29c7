"""The daemon of the benchmark: `mlrs serve` on loopback, with a data folder for its lifetime only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mlrs_bench.errors import DaemonStartError
from mlrs_bench.models import ADVISED, ModelFile

COMMAND = (sys.executable, "-m", "mlrs_cli")
"""The command `mlrs`, run by this Python."""
TIED_COMMAND = (sys.executable, "-m", "mlrs_bench.tied")
"""The command `mlrs` as a process that ends when this one ends."""
START_S = 240.0
"""How long the daemon may take to say where it listens."""
STOP_S = 30
"""How long the daemon may take to stop."""


@dataclass(frozen=True)
class Address:
    """Where the daemon is."""

    target: str
    """HOST:PORT."""


@contextmanager
def serving(models: Iterable[ModelFile]) -> Iterator[Address]:
    """Run a daemon that has these models; the network in question, if among them, is its default one.

    Raises:
        DaemonStartError: it did not start, or did not take a model.
    """
    with TemporaryDirectory(prefix="mlrs-bench-") as folder:
        data, models = Path(folder) / "data", list(models)
        for name, path in sorted({model.served_name: model.path for model in models}.items()):
            _import(data, name, path)
        default = [f"--model={model.served_name}" for model in models if model.method == ADVISED]
        with (Path(folder) / "log").open("w+", encoding="utf-8") as log:
            process = subprocess.Popen(  # noqa: S603  # of our own arguments
                [*TIED_COMMAND, "serve", "--listen", "127.0.0.1:0", "--data-dir", str(data), *default],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the benchmark, which still needs answers then
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            try:
                yield Address(_wait(process, log.name))
            finally:
                _stop(process)


def _import(data: Path, name: str, path: Path) -> None:
    command = [*COMMAND, "models", "import", "--data-dir", str(data), "--name", name, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # of our own arguments
    if result.returncode:
        raise DaemonStartError(f"the daemon does not take {path}: {result.stderr.strip()}")


def _wait(process: subprocess.Popen[str], log: str) -> str:
    assert process.stdout is not None  # noqa: S101  # it is a pipe
    timer = threading.Timer(START_S, process.kill)
    timer.start()
    try:
        line = process.stdout.readline()
    finally:
        timer.cancel()
    if "listening on" not in line:
        said = Path(log).read_text(encoding="utf-8").strip() or f"it said nothing within {START_S:g} s"
        raise DaemonStartError(f"the daemon did not start: {said}")
    return line.split()[-1]


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()
