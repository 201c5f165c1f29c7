"""What the dashboard costs: the time of its pages, the daemon's CPU, the wait of training loops, its memory.

A daemon has ten thousand short runs and one of a million steps, and ten training loops beside it take twenty
steps a second each, or as many as they can. A dashboard shows its runs. The requests of two pages, the list
of runs and the long run, are timed at the first look, in a dashboard and a daemon that have just started, and
later, in turns with bare calls over gRPC: `ListRuns` of a hundred runs, and `SummarizeRecord`. Then ten pages
follow the ten training loops, or none does, in turns. In the end different parts of the long record are asked
for, of which the dashboard keeps as much as it may.

    python -m performance.dashboard.page_load [--quick] [--json FILE]

Where Chromium and Playwright are installed, the long run's page is drawn in a browser, too.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import uvloop

from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from performance.advice.live_runs import Asked
from performance.dashboard import browser
from performance.dashboard.filled import LONG, filled_folder
from performance.dashboard.loops import PACE_S, Loops, training
from performance.dashboard.pages import LISTED, Browser, Pages, browsing, record_query
from performance.report import results
from performance.shared import blocks, servers

PAGES = 10
"""Pages that are open, and runs that they follow."""
PART_STEPS = 2000
"""The steps of the part of a record that a request asks for which is made but once."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    runs: int = 10_000
    steps: int = 1_000_000
    starts: int = 5
    """How often the daemon and the dashboard are started to be looked at first."""
    rounds: int = 12
    windows: int = 5
    """Pairs of windows in which CPU time is read."""
    window_s: float = 4.0
    block_s: float = 1.5
    """How long a block of advice takes."""
    requests: int = 2000
    """Different requests for parts of the long run's record."""


QUICK = Sizes(runs=300, steps=20_000, starts=1, rounds=2, windows=1, window_s=2.0, block_s=0.5, requests=100)


# ------------------------------------------------------------------------------------ two pages


class Bare:
    """What the pages show most of, over gRPC: what their times are compared with."""

    def __init__(self, channel: grpc.Channel) -> None:
        """Connect."""
        self._stub = AdvisorServiceStub(channel)
        self.list_runs()

    def list_runs(self) -> None:
        """Read a hundred runs, the newest first."""
        request = pb.ListRunsRequest(page_size=LISTED, order_by="create_time desc")
        assert len(self._stub.ListRuns(request).runs) == LISTED

    def summarize(self) -> None:
        """Read the long run's record in buckets."""
        assert self._stub.SummarizeRecord(
            pb.SummarizeRecordRequest(run_id=LONG, max_buckets=1000)
        ).mean_losses


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _first_look(data: Path) -> dict[str, float]:
    """Start both, and return the seconds of each page's requests, and then those of the bare calls."""
    with ExitStack() as stack:
        daemon = stack.enter_context(servers.daemon("--data-dir", str(data)))
        dashboard = stack.enter_context(servers.dashboard(daemon.address))
        looking = stack.enter_context(closing(Browser(dashboard.address)))
        taken = {"list": _seconds(looking.list_runs), "run": _seconds(lambda: looking.show_run(LONG))}
        bare = Bare(stack.enter_context(grpc.insecure_channel(daemon.address)))
        return taken | {"bare list": _seconds(bare.list_runs), "bare run": _seconds(bare.summarize)}


def _later_looks(daemon: servers.Server, dashboard: servers.Server, rounds: int) -> dict[str, Any]:
    """Return the seconds of the pages' requests in turns with the bare calls, and what is received."""
    shown, numbers = dict[str, int](), itertools.count(1)
    with ExitStack() as stack:
        looking = stack.enter_context(closing(Browser(dashboard.address)))
        bare = Bare(stack.enter_context(grpc.insecure_channel(daemon.address)))

        def list_runs() -> None:
            before = looking.received
            looking.list_runs()
            shown["list_bytes"] = looking.received - before

        def run() -> None:
            before = looking.received
            shown["points"] = looking.show_run(LONG)
            shown["run_bytes"] = looking.received - before

        calls = {
            "bare list": bare.list_runs,
            "bare run": bare.summarize,
            "list": list_runs,
            "run": run,
            "run, read again": lambda: looking.show_run(LONG, buckets=1000 - next(numbers)),
        }
        cases = {name: partial(_seconds, call) for name, call in calls.items()}
        return _page_figures(blocks.take_turns(cases, rounds)) | shown


def _page_figures(taken: dict[str, list[float]]) -> dict[str, Any]:
    figures = {}
    for name, seconds in taken.items():
        bare = "bare run" if "run" in name else "bare list"
        figures[name] = {"seconds": _quartiles(seconds), "bare_ratio": blocks.ratio(seconds, taken[bare])}
    return figures


def _quartiles(values: Any) -> dict[str, float]:
    low, middle, high = np.percentile(values, [25, 50, 75]).tolist()
    return {"median": middle, "low": low, "high": high, "worst": float(np.max(values))}


# ------------------------------------------------------------------------------------ pages that follow


@dataclass
class Following:
    """Ten training loops, and ten pages that may follow them."""

    daemon: servers.Server
    dashboard: servers.Server
    loops: Loops
    pages: Pages

    def __post_init__(self) -> None:
        """Note what pages receive."""
        self.received: list[dict[str, float]] = []

    def open(self, *, are_open: bool) -> Any:
        """Have the pages open, or closed, for the length of a block."""
        return self.pages.open(self.dashboard.address, self.loops.ids) if are_open else nullcontext({})

    def window(self, seconds: float, *, are_open: bool) -> dict[str, float]:
        """Return the CPU of both processes, in cores, and the loops' steps a second."""
        with self.open(are_open=are_open) as received:
            began, steps = time.monotonic(), self.loops.steps
            before = self.daemon.cpu_s(), self.dashboard.cpu_s()
            time.sleep(seconds)
            after, took = (self.daemon.cpu_s(), self.dashboard.cpu_s()), time.monotonic() - began
            steps = self.loops.steps - steps
        if are_open:
            self.received.append({name: value / took for name, value in received.items()})
        daemon_s, dashboard_s = np.subtract(after, before) / took
        return {"daemon": float(daemon_s), "dashboard": float(dashboard_s), "steps": steps / took}

    def advice(self, loop: Asked, seconds: float, *, are_open: bool) -> blocks.Floats:
        """Return the seconds that another training loop waited for each advice."""
        with self.open(are_open=are_open):
            until, taken = time.monotonic() + seconds, []
            while time.monotonic() < until:
                taken.append(loop.block())
        return np.concatenate(taken)


def _cpu(following: Following, sizes: Sizes) -> dict[str, Any]:
    """Return the CPU with pages and without, at the loops' pace and as fast as they can go."""
    figures: dict[str, Any] = {}
    for name, pause_s in {"paced": PACE_S, "as fast as they can": 0.0}.items():
        following.loops.pace(pause_s)
        following.received = []
        taken = blocks.take_turns(
            {
                "closed": lambda: following.window(sizes.window_s, are_open=False),
                "open": lambda: following.window(sizes.window_s, are_open=True),
            },
            sizes.windows,
            warm_up=False,
        )
        figures[name] = _cpu_figures(taken) | {
            f"{what}_per_s": float(np.median([one[what] for one in following.received]))
            for what in ("events", "received")
        }
    following.loops.pace(PACE_S)
    return figures


def _cpu_figures(taken: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    column = {
        state: {name: np.array([each[name] for each in some]) for name in some[0]}
        for state, some in taken.items()
    }
    more = column["open"]["daemon"] - column["closed"]["daemon"]
    per_step = {state: some["daemon"] / some["steps"] for state, some in column.items()}
    return {
        "daemon": {state: _quartiles(some["daemon"]) for state, some in column.items()},
        "daemon_more": _quartiles(more),
        "dashboard": _quartiles(column["open"]["dashboard"]),
        "steps_per_s": {state: _quartiles(some["steps"]) for state, some in column.items()},
        "per_step_ratio": blocks.ratio(per_step["open"].tolist(), per_step["closed"].tolist()),
    }


def _advice(following: Following, runner: asyncio.Runner, sizes: Sizes) -> dict[str, Any]:
    """Return how long advice of another run takes while pages are open, and while none is."""
    loop = Asked(runner, following.daemon)
    taken = blocks.take_turns(
        {
            "closed": lambda: following.advice(loop, sizes.block_s, are_open=False),
            "open": lambda: following.advice(loop, sizes.block_s, are_open=True),
        },
        sizes.rounds,
    )
    runner.run(loop.close())
    figures: dict[str, Any] = {state: blocks.percentiles_us(some) for state, some in taken.items()}
    for level in (50, 99):
        by_round = {
            state: [float(np.percentile(one, level)) for one in some] for state, some in taken.items()
        }
        figures[f"p{level}_ratio"] = blocks.ratio(by_round["open"], by_round["closed"])
    return figures


# ------------------------------------------------------------------------------------ memory


def _hammered(dashboard: servers.Server, sizes: Sizes) -> list[dict[str, int]]:
    """Ask for different parts of the long record; return the dashboard's memory four times meanwhile."""
    looking, rows = Browser(dashboard.address), []
    for number in range(sizes.requests):
        first = number * (sizes.steps - PART_STEPS) // sizes.requests
        looking.get(record_query(LONG, **{"from": first, "to": first + PART_STEPS}))
        if (number + 1) % (sizes.requests // 4) == 0:
            rows.append({"requests": number + 1, "rss": dashboard.rss_bytes(), "received": looking.received})
    looking.close()
    return rows


def measure(quick: bool) -> results.Figures:  # noqa: FBT001  # what every benchmark is given
    """Return the figures of pages, CPU, advice and memory."""
    sizes = QUICK if quick else Sizes()
    figures: dict[str, Any] = {"runs": sizes.runs, "steps": sizes.steps, "pages": PAGES}
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        data = stack.enter_context(filled_folder(runner, sizes.runs, sizes.steps))
        first = [_first_look(data) for _ in range(sizes.starts)]
        figures["first"] = _page_figures({name: [each[name] for each in first] for name in first[0]})
        daemon = stack.enter_context(servers.daemon("--data-dir", str(data)))
        dashboard = stack.enter_context(servers.dashboard(daemon.address))
        figures["rss_at_start"] = dashboard.rss_bytes()
        figures["later"] = _later_looks(daemon, dashboard, sizes.rounds)
        figures["drawn"] = {
            name: _quartiles(seconds)
            for name, seconds in browser.drawn(dashboard.address, LONG, min(sizes.rounds, 5)).items()
        }
        ids = [f"live/{number}" for number in range(PAGES)]
        following = Following(
            daemon,
            dashboard,
            stack.enter_context(training(daemon.address, ids)),
            stack.enter_context(browsing()),
        )
        figures["cpu"] = _cpu(following, sizes)
        figures["advice"] = _advice(following, runner, sizes)
        figures["rss_followed"] = dashboard.rss_bytes()
        figures["hammered"] = _hammered(dashboard, sizes)
        figures["cache"] = Browser(dashboard.address).get("/api/session")["dashboard"]["memory_limit_bytes"]
    return figures


if __name__ == "__main__":
    results.run(__file__, __doc__, measure)
