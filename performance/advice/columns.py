"""What sweeps get: messages that hold a step of many runs, down one stream, several on their way at once.

The daemon stores what it answers, as shipped. It is compared with an echo of messages of the same sizes, and
with the same model that takes the same steps in this process, without a wire or a store.

    python -m performance.advice.columns [--quick] [--json FILE]
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import uvloop

from performance.report import results
from performance.shared import blocks, servers
from performance.shared.in_process import DRIFT, Answers, shipped_model
from performance.shared.messages import Messages
from performance.shared.streams import Stream, channel_to, open_runs

ENTRIES = (1, 16, 256, 4096)
"""Entries of a message, each of another run."""
DEPTHS = (1, 2, 4)
"""Messages on their way at once: the next steps of the same runs."""
HORIZON = 1000
"""Steps of a run; all are taken."""
BLOCK = 200
"""Steps of a block."""
SETTLE_S = 0.3
"""What the daemon does after a block, such as storing, is over by then."""

Case = Callable[[], dict[str, float]]
"""Takes a block of steps; returns entries per second and the server's CPU µs per entry."""


class ColumnWire:
    """Some runs whose steps go down a stream together."""

    def __init__(self, runner: asyncio.Runner, server: servers.Server, entries: int) -> None:
        """Open the runs and the stream."""
        self._runner, self._server, self._entries = runner, server, entries
        self._step = 0
        runner.run(self._open())

    async def _open(self) -> None:
        self._channel = channel_to(self._server.address)
        is_daemon = self._server.name == "daemon"
        handles = range(1, self._entries + 1)
        self._messages = Messages(
            await open_runs(self._channel, self._entries, HORIZON) if is_daemon else handles
        )
        self._stream = Stream(self._channel, self._server.method)

    def block(self, depth: int) -> dict[str, float]:
        """Take a block of steps."""
        messages = [self._messages.at(step) for step in range(self._step, self._step + BLOCK)]
        self._step += BLOCK
        cpu_s, start = self._server.cpu_s(), time.perf_counter()
        self._reply = self._runner.run(self._stream.pump(messages, depth))
        took = time.perf_counter() - start
        time.sleep(SETTLE_S if self._server.name == "daemon" else 0)
        count = BLOCK * self._entries
        return {"rate": count / took, "server_us": (self._server.cpu_s() - cpu_s) / count * 1e6}

    def close(self) -> None:
        """Check the last answer and hang up."""
        self._runner.run(self._stream.end(self._entries, self._reply))
        self._runner.run(self._channel.close())


class WithoutWire:
    """The same runs without a wire."""

    def __init__(self, entries: int) -> None:
        """Begin the runs."""
        self._answers = Answers(shipped_model(DRIFT).policy(), entries, HORIZON)
        self._entries, self._step = entries, 0

    def block(self) -> dict[str, float]:
        """Take a block of steps."""
        cpu_s, start = time.process_time(), time.perf_counter()
        for step in range(self._step, self._step + BLOCK):
            self._answers.step(step)
        took, cpu_s = time.perf_counter() - start, time.process_time() - cpu_s
        self._step += BLOCK
        count = BLOCK * self._entries
        return {"rate": count / took, "server_us": cpu_s / count * 1e6}


def of_size(runner: asyncio.Runner, pair: list[servers.Server], entries: int, rounds: int) -> dict[str, Any]:
    """Return the figures of messages of so many entries."""
    wires: list[ColumnWire] = []
    cases: dict[str, Case] = {"in_process": WithoutWire(entries).block}
    for depth in DEPTHS:
        for server in pair:
            wires.append(ColumnWire(runner, server, entries))
            cases[f"{server.name}/{depth}"] = partial(wires[-1].block, depth)
    taken = blocks.take_turns(cases, rounds, warm_up=False)
    for wire in wires:
        wire.close()
    return {name: _figures(taken, name) for name in taken}


def _figures(taken: dict[str, list[dict[str, float]]], name: str) -> dict[str, Any]:
    """Return a case's medians, and its ratios to the echo of the same depth and to the work in process."""
    rates = {case: [one["rate"] for one in rounds] for case, rounds in taken.items()}
    echo = f"echo/{name.partition('/')[2] or 1}"
    return {
        "rate": float(np.median(rates[name])),
        "server_us": float(np.median([one["server_us"] for one in taken[name]])),
        "echo_ratio": blocks.ratio(rates[name], rates[echo]),
        "in_process_ratio": blocks.ratio(rates[name], rates["in_process"]),
    }


def measure(quick: bool) -> results.Figures:  # noqa: FBT001  # what every benchmark is given
    """Return the figures of each number of entries."""
    rounds = 1 if quick else HORIZON // BLOCK
    with ExitStack() as stack:
        pair = [stack.enter_context(servers.daemon()), stack.enter_context(servers.echo())]
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        of_size(runner, pair, 1, 1)  # a warm-up
        return {str(entries): of_size(runner, pair, entries, rounds) for entries in ENTRIES}


if __name__ == "__main__":
    results.run(__file__, __doc__, measure)
