"""A training loop beside whatever else happens to a daemon, in a process of its own: how long it waits.

As a script it takes steps until its input ends, and writes when each began and how long it took, in seconds.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

import numpy as np

import mlrs
from tests.support.runs import open_run

ROOT = Path(__file__).parents[2]


class Bystander:
    """The process; a context manager."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._waits: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.support.bystander", self._address]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._reader.join(30)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            at, wait = line.split()
            self._waits.append((float(at), float(wait)))

    def wait_for_steps(self, count: int, timeout_s: float = 60.0) -> tuple[float, float]:
        """Wait until so many more steps were taken; return the median and the 99th percentile of them."""
        start, deadline = len(self._waits), time.monotonic() + timeout_s
        while len(self._waits) < start + count:
            assert time.monotonic() < deadline, "the bystander is starved"
            assert self._process.poll() is None, "the bystander has failed"
            time.sleep(0.02)
        waits = [wait for _, wait in self._waits[start:]]
        return float(np.median(waits)), float(np.quantile(waits, 0.99))


def main() -> None:
    """Take steps until the input ends."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    with mlrs.connect(sys.argv[1], timeout_s=20) as advisor:
        run = open_run(advisor, f"bystander-{time.time_ns()}")
        step = 0
        while not ended.is_set():
            began = time.monotonic()
            run.next_lr(step, 1.0 / (1 + step))
            print(f"{began} {time.monotonic() - began}", flush=True)  # noqa: T201  # the test reads it
            ended.wait(0.005)
            step += 1


if __name__ == "__main__":
    main()
