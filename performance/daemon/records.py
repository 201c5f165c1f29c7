"""What a page about runs asks of the daemon: time and bytes, and the wait of training loops meanwhile.

The daemon's store has ten thousand short runs, and two of a million steps. The record of one of these is in
large pieces, as after compaction, and that of the other in pieces of ten steps, as the flushes of a run of a
hundred steps a second leave it. Calls are timed in turns with `GetRun` and with `WatchRun` of a whole record.
Then a training loop asks for advice while another process reads whole records without a pause, or what is new
of ten runs once a second, or reads the same from another daemon, or nothing, in turns.

    python -m performance.daemon.records [--quick] [--json FILE]
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import numpy as np
import uvloop

from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from mlrs_server.storage import SqlStore, open_store
from mlrs_server.storage.chunks import pack_chunk
from mlrs_server.storage.tables import observations
from mlrs_server.system.data_folder import STORE_FILE
from performance.advice.live_runs import Asked
from performance.report import results
from performance.shared import blocks, servers
from performance.shared.messages import losses_of

STEPS, RUNS, SHORT = 1_000_000, 10_000, 32
"""The steps of a long run; how many short runs there are, and their steps."""
PIECE = 10
"""The steps of a piece of the run that is not merged."""
MERGED, FLUSHED = "long/merged", "long/flushed"
PAGES = 10
"""Runs that are followed."""
CALLS, ROUNDS, BLOCK_S = 3, 15, 2.0
"""Calls of a kind in a block; blocks; and how long a block of advice takes."""


# ----------------------------------------------------------------------------------- the store


async def _fill(address: str, steps: int, runs: int) -> None:
    """Have the runs observed."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = AdvisorServiceStub(channel)
        for run_id in (MERGED, FLUSHED):
            (handle,) = await _opened(stub, [run_id])
            for first in range(0, steps, 8192):
                some = np.arange(first, min(first + 8192, steps))
                await _observe(stub, [handle] * len(some), some.tolist())
        ids = [f"short/{number:05}" for number in range(runs)]
        for start in range(0, runs, 1000):
            handles = await _opened(stub, ids[start : start + 1000])
            for step in range(SHORT):
                await _observe(stub, handles, [step] * len(handles))


async def _opened(stub: Any, ids: list[str]) -> list[int]:
    config = pb.RunConfig(schedule=pb.Schedule(base_lr=0.1, cosine=pb.Schedule.Cosine()), horizon=2 * STEPS)
    requests = [pb.OpenRunRequest(run_id=run_id, config=config) for run_id in ids]
    answer = await stub.BatchOpenRuns(pb.BatchOpenRunsRequest(requests=requests))
    return [response.run_handle for response in answer.responses]


async def _observe(stub: Any, handles: list[int], steps: list[int]) -> None:
    losses = np.resize(losses_of(1).ravel(), len(steps))
    message = pb.StreamAdviceRequest(
        observations=pb.Observations(run_handles=handles, steps=steps, losses=losses)
    )
    (answer,) = [answer async for answer in stub.StreamAdvice(iter([message]))]
    assert not answer.advice.errors, answer.advice.errors[0]


def _lay_out(store: SqlStore) -> None:
    """Put the record of one long run into large pieces, and that of the other into small ones."""
    runs = store.get([MERGED, FLUSHED])
    step: int | None = 0
    while step is not None:
        step = store.merge(runs[MERGED], step)
    key, end = runs[FLUSHED].key, runs[FLUSHED].snapshot.next_step
    record = store.read(key, 0, end)
    rows = [
        {
            "run_key": key,
            "first_step": first,
            "steps": len(part := record.cut(first, PIECE)),
            "record": pack_chunk(part),
        }
        for first in range(0, end, PIECE)
    ]
    with store.transaction() as connection:
        connection.execute(observations.delete().where(observations.c.run_key == key))
        for some in range(0, len(rows), 1000):
            connection.execute(observations.insert(), rows[some : some + 1000])


@contextmanager
def _filled(runner: asyncio.Runner, steps: int, runs: int) -> Iterator[servers.Server]:
    """Run a daemon that has the runs, none of them in memory."""
    with TemporaryDirectory(prefix="mlrs-bench-") as folder:
        data = Path(folder) / "data"
        with servers.daemon("--data-dir", str(data)) as daemon:
            runner.run(_fill(daemon.address, steps, runs))
        with closing(open_store(data / STORE_FILE)) as store:
            _lay_out(store)
        with servers.daemon("--data-dir", str(data)) as daemon:
            yield daemon


# ------------------------------------------------------------------------------------ the calls


@dataclass
class Calls:
    """The calls of pages, and how large their answers are."""

    stub: Any
    runs: int

    def __post_init__(self) -> None:
        """Read once what later calls go on from."""
        self.sizes: dict[str, tuple[int, int]] = {}
        self.tokens = {run_id: self.summary(run_id).next_page_token for run_id in (MERGED, FLUSHED)}

    def summary(self, run_id: str, token: str = "") -> pb.SummarizeRecordResponse:
        """Read a record in 1000 buckets, or what is new of it."""
        request = pb.SummarizeRecordRequest(run_id=run_id, max_buckets=1000, page_token=token)
        answer: pb.SummarizeRecordResponse = self.stub.SummarizeRecord(request)
        return answer

    def kinds(self) -> dict[str, Callable[[], Any]]:
        """Return the calls by their names."""
        fifty = [f"short/{n:05}" for n in np.linspace(0, self.runs - 1, 50).astype(int)]
        recent = pb.ListRunsRequest(page_size=50, order_by="update_time desc")
        return {
            "get": lambda: self.stub.GetRun(pb.GetRunRequest(run_id=fifty[0])),
            "watch merged": lambda: self._watched(MERGED),
            "watch flushed": lambda: self._watched(FLUSHED),
            "summary merged": lambda: self.summary(MERGED),
            "summary flushed": lambda: self.summary(FLUSHED),
            "new merged": lambda: self.summary(MERGED, self.tokens[MERGED]),
            "new flushed": lambda: self.summary(FLUSHED, self.tokens[FLUSHED]),
            "sample 50 short": lambda: self._sampled(fifty),
            "sample merged": lambda: self._sampled([MERGED]),
            "sample flushed": lambda: self._sampled([FLUSHED]),
            "list 50 recent": lambda: self.stub.ListRuns(recent),
            "list 1000": lambda: self.stub.ListRuns(pb.ListRunsRequest(page_size=1000)),
        }

    def _watched(self, run_id: str) -> list[Any]:
        return list(self.stub.WatchRun(pb.WatchRunRequest(run_id=run_id)))

    def _sampled(self, ids: list[str]) -> pb.SampleRecordsResponse:
        answer: pb.SampleRecordsResponse = self.stub.SampleRecords(pb.SampleRecordsRequest(run_ids=ids))
        return answer

    def block(self, name: str) -> float:
        """Return the median seconds of some calls of a kind, and note how large the answer is."""
        call, taken = self.kinds()[name], []
        for _ in range(CALLS):
            began = time.perf_counter()
            answer = call()
            taken.append(time.perf_counter() - began)
        parts = answer if isinstance(answer, list) else [answer, *getattr(answer, "samples", ())]
        points = [len(getattr(part, field, ())) for part in parts for field in ("losses", "mean_losses")]
        size = sum(part.ByteSize() for part in (answer if isinstance(answer, list) else [answer]))
        self.sizes[name] = size, sum(points)
        return float(np.median(taken))


def _timed(address: str, runs: int, rounds: int) -> dict[str, Any]:
    """Return the times and sizes of the calls."""
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options=options) as channel:
        calls = Calls(AdvisorServiceStub(channel), runs)
        taken = blocks.take_turns({name: partial(calls.block, name) for name in calls.kinds()}, rounds)
    figures: dict[str, Any] = {}
    for name, seconds in taken.items():
        row = figures[name] = {
            "seconds": float(np.median(seconds)),
            "get_ratio": blocks.ratio(seconds, taken["get"]),
            "bytes": calls.sizes[name][0],
            "points": calls.sizes[name][1],
        }
        if name.startswith("summary"):
            row["watch_ratio"] = blocks.ratio(seconds, taken[name.replace("summary", "watch")])
    return figures


# ----------------------------------------------------------------------------------- the advice


def _read(addresses: dict[str, str], asked: Any) -> None:
    """Read records of the daemon that was asked for, as was asked for, until told to end."""
    stubs = {name: AdvisorServiceStub(grpc.insecure_channel(one)) for name, one in addresses.items()}
    calls = {name: Calls(stub, 1) for name, stub in stubs.items()}
    what = ""
    while what != "end":
        what = asked.recv() if not what or asked.poll() else what
        if what.startswith("whole"):
            for run_id in (MERGED, FLUSHED):
                calls[what.split()[1]].summary(run_id)
        elif what.startswith("new"):
            began = time.monotonic()
            for number in range(PAGES):
                run_id = (MERGED, FLUSHED)[number % 2]
                calls[what.split()[1]].summary(run_id, calls[what.split()[1]].tokens[run_id])
            asked.poll(max(0.0, 1.0 + began - time.monotonic()))
        elif what == "nothing":
            what = ""


def _advised(runner: asyncio.Runner, daemon: servers.Server, other: servers.Server, rounds: int) -> Any:
    """Return how long advice takes while nothing, this daemon or another one is read from."""
    ours, theirs = get_context("spawn").Pipe()
    addresses = {"this": daemon.address, "other": other.address}
    reader = get_context("spawn").Process(target=_read, args=(addresses, theirs), daemon=True)
    reader.start()
    loop = Asked(runner, daemon)

    def block(what: str) -> Callable[[], blocks.Floats]:
        def asked() -> blocks.Floats:
            ours.send(what)
            time.sleep(0.3)
            until, taken = time.monotonic() + BLOCK_S, []
            while time.monotonic() < until:
                taken.append(loop.block())
            return np.concatenate(taken)

        return asked

    cases = ("nothing", "whole this", "whole other", "new this", "new other")
    taken = blocks.take_turns({what: block(what) for what in cases}, rounds)
    ours.send("end")
    reader.join(30)
    runner.run(loop.close())
    middles = {what: blocks.medians(seconds) for what, seconds in taken.items()}
    return {
        what: {
            **blocks.percentiles_us(taken[what]),
            "quiet_ratio": blocks.ratio(middles[what], middles["nothing"]),
            "other_ratio": blocks.ratio(middles[what], middles[what.replace("this", "other")]),
        }
        for what in cases
    }


def measure(quick: bool) -> results.Figures:  # noqa: FBT001  # what every benchmark is given
    """Return the times and sizes of a page's calls, and the times of advice meanwhile."""
    steps, runs, rounds = (20_000, 200, 2) if quick else (STEPS, RUNS, ROUNDS)
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        daemon = stack.enter_context(_filled(runner, steps, runs))
        calls = _timed(daemon.address, runs, rounds)
        other = stack.enter_context(_filled(runner, steps, 50))
        advice = _advised(runner, daemon, other, rounds)
    return {"steps": steps, "runs": runs, "calls": calls, "advice": advice}


if __name__ == "__main__":
    results.run(__file__, __doc__, measure)
