"""A real daemon in a process of its own, for tests that need one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

PYTHON = os.environ.get("MLRS_DAEMON_PYTHON", sys.executable)
"""The interpreter of daemons: that of the tests, unless these run in an environment of clients only."""


class Daemon:
    """`mlrs serve` on a free port of loopback; a context manager that stops it."""

    def __init__(
        self,
        data_dir: Path,
        *arguments: str,
        listen: str = "127.0.0.1:0",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.environment = dict(environment or {})
        """Variables that it is started with, beside this process's."""
        self._arguments = arguments
        self._listen = listen
        self._process: subprocess.Popen[str] | None = None
        self.address = ""
        self.log = data_dir.with_name(data_dir.name + ".log")

    def start(self) -> Self:
        """Start it and wait until it listens; the second time on the port it had before."""
        return self.launch().listening()

    def launch(self) -> Self:
        """Start it and do not wait."""
        command = [PYTHON, "-m", "mlrs_cli", "serve", "--listen", self.address or self._listen]
        command += ["--data-dir", str(self.data_dir), *self._arguments]
        with self.log.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **self.environment},
            )
        return self

    def listening(self) -> Self:
        """Wait until it listens."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("mlrs is listening on "), self.log.read_text(encoding="utf-8")
        self.address = line.split()[-1]
        return self

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        """Tell it to drain; return its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; return its exit status."""
        assert self._process is not None
        status = self._process.wait(30)
        if self._process.stdout:
            self._process.stdout.close()
        return status

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.kill()
        self.wait()


def write_random_model(path: Path, *, seed: int = 0, hidden_size: int = 8) -> Path:
    """Write a small network of three snapshots with random weights; return its file."""
    from mlrs_core.networks.paper import PaperSpec

    return _write(path, PaperSpec(hidden_size=hidden_size), snapshots=3, seed=seed)


def write_tail_model(path: Path, *, seed: int = 0, hidden_size: int = 4) -> Path:
    """Write a small tail network with random weights; return its file."""
    from mlrs_core.networks.tail import TailSpec

    return _write(path, TailSpec(hidden_size=hidden_size), snapshots=1, seed=seed)


def _write(path: Path, spec: Any, *, snapshots: int, seed: int) -> Path:
    import numpy as np  # here, as environments of clients have daemons, and no models

    from mlrs_core.models.checkpoint import dump_model
    from mlrs_core.models.model import Model

    rng = np.random.default_rng(seed)
    weights = tuple(
        {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in spec.weight_shapes().items()}
        for _ in range(snapshots)
    )
    model = Model(architecture=spec, snapshots=weights, provenance={"method": "random", "seed": seed})
    path.write_bytes(dump_model(model))
    return path
