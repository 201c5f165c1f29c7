"""What a run that is live costs the others: memory, and the wait for advice, by how many there are.

One daemon takes more and more runs, each of which is observed three times; another has one run, always. Both
are asked for advice about one run alternately, and so is an echo.

    python -m performance.advice.live_runs [--quick] [--json FILE]
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import ExitStack
from typing import Any

import uvloop

from performance.report import results
from performance.shared import blocks, servers
from performance.shared.messages import Messages
from performance.shared.streams import Stream, channel_to, open_runs

LIVE = (1, 1000, 10_000, 100_000)
"""Runs live in the daemon."""
OBSERVATIONS = 3
"""Of each."""
ENTRIES = 4096
"""The most of them in a message."""
HORIZON = 10_000
"""Steps of the runs: more than are taken."""
BLOCK = 200
ROUNDS = 20
IDLE_S = 20
"""How long runs stay in memory, in the daemon where they leave it: longer than opening all takes."""
LEFT = re.compile(r'"count": (\d+), "event": "idle_runs_left_memory"')
SETTLE_S = 2.0
"""By then the daemon has stored the last of the runs, and is idle."""


class Asked:
    """A server that is asked about one run, step by step."""

    def __init__(self, runner: asyncio.Runner, server: servers.Server) -> None:
        """Open the run and a stream."""
        self._runner, self._server, self._step = runner, server, 0
        runner.run(self._open())

    async def _open(self) -> None:
        self.channel = channel_to(self._server.address)
        self._messages = Messages(
            await open_runs(self.channel, 1, HORIZON) if self._server.name == "daemon" else [1]
        )
        self._stream = Stream(self.channel, self._server.method)

    def block(self) -> blocks.Floats:
        """Return the seconds of each step of a block."""
        return self._runner.run(self._timed())

    async def _timed(self) -> blocks.Floats:
        seconds = []
        for _ in range(blocks.SETTLE_CALLS + BLOCK):
            message = self._messages.at(self._step)
            self._step += 1
            start = time.perf_counter()
            self._reply = await self._stream.exchange(message)
            seconds.append(time.perf_counter() - start)
        return blocks.counted(seconds)

    async def add(self, count: int) -> tuple[float, float]:
        """Open more runs and observe each; return the seconds of both."""
        start = time.perf_counter()
        handles = await open_runs(self.channel, count, HORIZON)
        opened = time.perf_counter()
        for first in range(0, count, ENTRIES):
            some = handles[first : first + ENTRIES]
            messages = Messages(some)
            stream = Stream(self.channel, self._server.method)
            reply = await stream.pump([messages.at(step) for step in range(OBSERVATIONS)], 1)
            await stream.end(len(some), reply)
        return opened - start, time.perf_counter() - opened

    async def close(self) -> None:
        """Check the last answer and hang up."""
        await self._stream.end(1, self._reply)
        await self.channel.close()


def measure(quick: bool) -> results.Figures:  # noqa: FBT001  # what every benchmark is given
    """Return the figures of each number of live runs."""
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        grown = stack.enter_context(servers.daemon())
        at_start = grown.rss_bytes()
        asked = {
            "grown": Asked(runner, grown),
            "alone": Asked(runner, stack.enter_context(servers.daemon())),
            "echo": Asked(runner, stack.enter_context(servers.echo())),
        }
        asked["grown"].block()
        rows: dict[str, dict[str, Any]] = {}
        live, before = 1, at_start
        for wanted in LIVE[:3] if quick else LIVE:
            row = rows[str(wanted)] = _grown(runner, asked["grown"], wanted - live)
            row["rss"] = rss = grown.rss_bytes()
            row["rss_per_run"] = (rss - at_start) / wanted
            row["rss_per_further_run"] = (rss - before) / max(1, wanted - live)
            row |= _advice(asked, 3 if quick else ROUNDS)
            live, before = wanted, rss
        for one in asked.values():
            runner.run(one.close())
    figures = {"rss_at_start": at_start, "observations": OBSERVATIONS, "runs": rows}
    return figures if quick else figures | {"idle": _idle(LIVE[-1])}


def _idle(count: int) -> dict[str, Any]:
    """Return what so many runs take while they are live, and once they have left memory."""
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        daemon = stack.enter_context(servers.daemon("--idle-after-s", str(IDLE_S)))
        asked = Asked(runner, daemon)
        asked.block()
        at_start = daemon.rss_bytes()
        runner.run(asked.add(count))
        live, left = daemon.rss_bytes(), 0
        while left < count:
            time.sleep(0.5)
            left = sum(map(int, LEFT.findall(daemon.log.read_text(encoding="utf-8"))))
        idle = daemon.rss_bytes()
        runner.run(asked.close())
    return {
        "count": count,
        "live_bytes_per_run": (live - at_start) / count,
        "idle_bytes_per_run": (idle - at_start) / count,
    }


def _grown(runner: asyncio.Runner, daemon: Asked, count: int) -> dict[str, Any]:
    """Open so many more runs, if any, and let the daemon store them; return how long it took."""
    open_s, observe_s = runner.run(daemon.add(count)) if count else (0.0, 0.0)
    time.sleep(SETTLE_S)
    return {"opened": count, "open_s": open_s, "observe_s": observe_s}


def _advice(asked: dict[str, Asked], rounds: int) -> dict[str, Any]:
    """Return how long advice takes in the daemon with many runs, and its ratios to the others."""
    taken = blocks.take_turns({name: one.block for name, one in asked.items()}, rounds)
    middles = {name: blocks.medians(seconds) for name, seconds in taken.items()}
    return {
        **blocks.percentiles_us(taken["grown"]),
        "alone_ratio": blocks.ratio(middles["grown"], middles["alone"]),
        "echo_ratio": blocks.ratio(middles["grown"], middles["echo"]),
    }


if __name__ == "__main__":
    results.run(__file__, __doc__, measure)
