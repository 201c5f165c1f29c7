"""What many streams at once cost: the daemon against the bare echo, and how a new one fares among busy ones.

Of each block both the server's CPU time and the generator's are counted, until what the server does
afterwards, such as storing, is done too. Where the generator costs more than the server, it is what limits
messages per second, and CPU per message is the figure to look at.

    python -m performance.advice.load [--quick] [--json FILE]
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

STREAMS = (1, 4, 16, 64, 256, 512)
OTHERS = 2000
"""Streams that are busy while a new one comes."""
ROUNDS = 5
BLOCK_S = 1.5
SETTLE_S = 0.3
"""What a server does after a block is over by then."""
JOINING_S = 6.0
"""A block of new streams."""

Figures = dict[str, Any]


def block(server: servers.Server, generators: list[Generator], seconds: float) -> dict[str, Any]:
    """Keep all streams of a server busy for so long; return what came of it."""
    cpu_s, began = server.cpu_s(), time.perf_counter()
    for source in generators:
        source.start("run", server, seconds)
    sent: list[Sent] = [source.result() for source in generators]
    took = time.perf_counter() - began
    time.sleep(SETTLE_S)
    latencies = np.concatenate([part.latencies for part in sent])
    count = len(latencies)
    return {
        "latencies": latencies,
        "server_us": (server.cpu_s() - cpu_s) / count * 1e6,
        "generator_us": sum(part.cpu_s for part in sent) / count * 1e6,
        "rate": count / took,
        "p50": float(np.percentile(latencies, 50)),
        "p99": float(np.percentile(latencies, 99)),
    }


def under_load(
    pair: list[servers.Server], generators: list[Generator], streams: int, *, quick: bool
) -> Figures:
    """Return the figures of so many streams, by server."""
    for server in pair:
        for part, source in zip(_parts(streams, len(generators)), generators, strict=True):
            source.do("open", server, part)
    cases = {server.name: partial(block, server, generators, 0.3 if quick else BLOCK_S) for server in pair}
    taken = blocks.take_turns(cases, 2 if quick else ROUNDS)
    for server in pair:
        for source in generators:
            source.do("close", server)
    return {name: _figures(rounds, taken["echo"]) for name, rounds in taken.items()}


def _parts(streams: int, generators: int) -> list[int]:
    """Return how many streams each generator has."""
    return [streams // generators + (index < streams % generators) for index in range(generators)]


def _figures(rounds: list[dict[str, Any]], echo: list[dict[str, Any]]) -> Figures:
    figures: Figures = blocks.percentiles_us([one["latencies"] for one in rounds])
    for name in ("server_us", "generator_us", "rate"):
        figures[name] = float(np.median([one[name] for one in rounds]))
    for name in ("server_us", "rate", "p50", "p99"):
        own, base = ([one[name] for one in side] for side in (rounds, echo))
        figures[f"{name}_ratio"] = blocks.ratio(own, base)
    return figures


def newcomers(pair: list[servers.Server], busy: Generator, others: int, *, quick: bool) -> Figures:
    """Return how long a new stream takes to its first advice, by server: alone, and among busy ones."""
    with generator() as guest:
        alone = {server.name: partial(_join_alone, server, guest, quick=quick) for server in pair}
        figures: Figures = {"alone": _joined(blocks.take_turns(alone, 3))}
        for server in pair:
            busy.do("open", server, others)
        among = {server.name: partial(_join_busy, server, busy, guest, quick=quick) for server in pair}
        figures["among_busy"] = _joined(blocks.take_turns(among, 2 if quick else 3, warm_up=False))
        for server in pair:
            busy.do("close", server)
    return figures | {"others": others}


def _join_alone(server: servers.Server, guest: Generator, *, quick: bool) -> blocks.Floats:
    return np.array(guest.do("join", server, 0.2 if quick else 1.0))


def _join_busy(server: servers.Server, busy: Generator, guest: Generator, *, quick: bool) -> blocks.Floats:
    seconds = 2.0 if quick else JOINING_S
    busy.start("run", server, seconds)
    time.sleep(SETTLE_S)  # by then all of them are
    joined = np.array(guest.do("join", server, seconds - 2 * SETTLE_S))
    busy.result()
    time.sleep(SETTLE_S)
    return joined


def _joined(taken: dict[str, list[blocks.Floats]]) -> Figures:
    middles = {name: blocks.medians(rounds) for name, rounds in taken.items()}
    return {
        name: {
            "p50_s": float(np.median(np.concatenate(rounds))),
            "worst_s": float(np.concatenate(rounds).max()),
            "count": int(sum(map(len, rounds))),
            "ratio": blocks.ratio(middles[name], middles["echo"]),
        }
        for name, rounds in taken.items()
    }


def measure(quick: bool) -> results.Figures:  # noqa: FBT001  # what every benchmark is given
    """Return the figures of each number of streams, and of new ones."""
    servers.allow_many_connections()
    with ExitStack() as stack:
        pair = [stack.enter_context(servers.daemon()), stack.enter_context(servers.echo())]
        count = max(1, min(4, (os.cpu_count() or 1) - 1))  # a core is the server's
        generators = [stack.enter_context(generator()) for _ in range(count)]
        by_streams = {
            str(streams): under_load(pair, generators, streams, quick=quick)
            for streams in ((1, 16, 64) if quick else STREAMS)
            if streams >= count or streams == 1
        }
        return {
            "generators": count,
            "streams": by_streams,
            "newcomers": newcomers(pair, generators[0], 200 if quick else OTHERS, quick=quick),
        }


if __name__ == "__main__":
    results.run(__file__, __doc__, measure)
