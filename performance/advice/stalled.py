"""What a daemon that is stopped costs the training thread, in `observe` and `lr` of a lagged loop.

python -m performance.advice.stalled [--quick] [--json FILE]

One daemon, one run: in every other block its process is stopped with SIGSTOP. After such a block it goes on,
and the next block begins once it has answered everything.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
from threadpoolctl import threadpool_limits

import mlrs
from performance.advice.latency import matmul_for
from performance.report import results
from performance.shared import blocks, servers

BLOCK = 500
"""Steps in a block."""
WORK_S = 0.001
"""The other work of a step."""
HORIZON = 100_000
LOSS = 2.3


class Loop:
    """A training loop that never waits, under one run."""

    def __init__(self, advisor: mlrs.Advisor, server: servers.Server) -> None:
        """Take the first step, which waits."""
        self._run = advisor.run("bench", horizon=HORIZON, num_classes=10, memory=False)
        self._server = server
        self._work = matmul_for(WORK_S)
        self._step = 0
        self._observe(lagged=False).lr()

    def undisturbed(self) -> dict[str, blocks.Floats]:
        """Return the training thread's seconds in the calls of a block of steps."""
        return self._block()

    def stalled(self) -> dict[str, blocks.Floats]:
        """Return the same of a block in which the daemon is stopped."""
        with _stopped(self._server.pid):
            taken = self._block()
        self._observe(lagged=False).lr(timeout_s=60.0)  # behind all others: the daemon has caught up
        return taken

    def _block(self) -> dict[str, blocks.Floats]:
        observing, asking = list[float](), list[float]()
        for _ in range(blocks.SETTLE_CALLS + BLOCK):
            began = time.perf_counter()
            pending = self._observe(lagged=True)
            observed = time.perf_counter()
            self._work()
            worked = time.perf_counter()
            pending.lr()
            observing.append(observed - began)
            asking.append(time.perf_counter() - worked)
        return {"observe": blocks.counted(observing), "lr": blocks.counted(asking)}

    def _observe(self, *, lagged: bool) -> mlrs.Pending:
        pending = self._run.observe(self._step, LOSS, lagged=lagged)
        self._step += 1
        return pending


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """Stop a process of ours, and let it go on at the end."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def measure(quick: bool) -> results.Figures:  # noqa: FBT001  # what every benchmark is given
    """Return, for each call, the medians of the blocks' percentiles, and what the stall adds to the 99th."""
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(1))  # a core stays free for the daemon
        server = stack.enter_context(servers.daemon())
        advisor = stack.enter_context(mlrs.connect(server.address, timeout_s=30.0))
        loop = Loop(advisor, server)
        cases: dict[str, Callable[[], dict[str, blocks.Floats]]] = {
            "undisturbed": loop.undisturbed,
            "stalled": loop.stalled,
        }
        taken = blocks.take_turns(cases, 4 if quick else 40)
    return {
        call: _figures({name: [block[call] for block in given] for name, given in taken.items()})
        for call in ("observe", "lr")
    }


def _figures(taken: dict[str, list[blocks.Floats]]) -> results.Figures:
    """Return the figures of a call. What disturbs few blocks of a busy machine does not show in medians."""
    percentiles = {name: np.percentile(given, [50, 99], axis=1) * 1e6 for name, given in taken.items()}
    added = percentiles["stalled"][1] - percentiles["undisturbed"][1]
    low, middle, high = np.percentile(added, [25, 50, 75]).tolist()
    medians = {name: np.median(of_blocks, axis=1).tolist() for name, of_blocks in percentiles.items()}
    return {
        **{name: {"p50_us": p50, "p99_us": p99} for name, (p50, p99) in medians.items()},
        "p99_added_us": {"median": middle, "low": low, "high": high},
    }


if __name__ == "__main__":
    results.run(__file__, __doc__, measure)
