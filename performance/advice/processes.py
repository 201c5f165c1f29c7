"""What a second process brings: the same streams on one daemon, and divided between two.

Each daemon has a port and a folder of its own, and runs of its own: nothing is shared. A generator's process
stands on each side, so the figure to read with the rate is what generators and servers took of the cores.

    python -m performance.advice.processes [--quick] [--json FILE]
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from performance.report import results
from performance.shared import blocks, servers
from performance.shared.generator import Generator, Sent, generator

STREAMS = 64
ROUNDS = 6
BLOCK_S = 2.0

Pairs = list[tuple[servers.Server, Generator]]


def block(pairs: Pairs, seconds: float) -> dict[str, Any]:
    """Keep the streams of some servers busy at the same time; return what came of it."""
    used = {server.pid: server.cpu_s() for server, _ in pairs}
    began = time.perf_counter()
    for server, source in pairs:
        source.start("run", server, seconds)
    sent: list[Sent] = [source.result() for _, source in pairs]
    took = time.perf_counter() - began
    count = sum(len(part.latencies) for part in sent)
    distinct = {server.pid: server for server, _ in pairs}.values()
    served_s = sum(server.cpu_s() - used[server.pid] for server in distinct)
    return {
        "rate": count / took,
        "p50_us": float(np.percentile(np.concatenate([part.latencies for part in sent]), 50)) * 1e6,
        "server_us": served_s / count * 1e6,
        "servers_of_a_core": served_s / took,
        "generators_of_a_core": sum(part.cpu_s for part in sent) / took,
    }


def measure(quick: bool) -> results.Figures:  # noqa: FBT001  # what every benchmark is given
    """Return the figures of one daemon, of two daemons, of one echo and of two echoes."""
    servers.allow_many_connections()
    seconds, rounds = (0.4, 2) if quick else (BLOCK_S, ROUNDS)
    figures: dict[str, Any] = {"streams": STREAMS, "cores": len(os.sched_getaffinity(0))}
    for start in (servers.daemon, servers.echo):
        with ExitStack() as stack:
            one, other = (stack.enter_context(start()) for _ in range(2))
            near, far = (stack.enter_context(generator()) for _ in range(2))
            for server, source in ((one, near), (one, far)):
                source.do("open", server, STREAMS // 2)
            mover = stack.enter_context(generator())  # has the half of the streams that goes elsewhere
            mover.do("open", other, STREAMS // 2)
            cases = {
                "one": partial(block, [(one, near), (one, far)], seconds),
                "two": partial(block, [(one, near), (other, mover)], seconds),
            }
            taken = blocks.take_turns(cases, rounds)
            rows = {name: _middle(part) for name, part in taken.items()}
            rates = {name: [row["rate"] for row in part] for name, part in taken.items()}
            rows["two"]["rate_ratio"] = blocks.ratio(rates["two"], rates["one"])
            figures[one.name] = rows
    return figures


def _middle(taken: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: float(np.median([row[name] for row in taken])) for name in taken[0]}


if __name__ == "__main__":
    results.run(__file__, __doc__, measure)
