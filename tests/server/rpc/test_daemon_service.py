"""Which daemon answers at an address, and how it is."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlrs_proto import v1 as pb
from mlrs_server.live import journal
from mlrs_server.telemetry.latency import BOUNDS_S
from tests.server.support import FailingStore, columns, create, refused, service
from tests.support.postgres import PostgresServer

TIMEOUT = 20


async def test_it_says_what_it_is(tmp_path: Path, model_file: Path) -> None:
    """A daemon says its version, when it began, and after how long it ends unused."""
    async with service(tmp_path / "a", model_file) as (stub, _):
        lasting = await stub.GetDaemon(pb.GetDaemonRequest())
    async with service(tmp_path / "b", model_file, exit_after_idle_s=600.5) as (stub, _):
        passing = await stub.GetDaemon(pb.GetDaemonRequest())
    assert lasting.version == passing.version == version("mlrs")
    assert not lasting.HasField("exit_after_idle")
    assert passing.exit_after_idle.ToNanoseconds() == 600_500_000_000
    assert 0 <= time.time() - lasting.start_time.ToNanoseconds() / 1e9 < 60


async def status(stub: Any) -> pb.GetDaemonStatusResponse:
    """Return how a daemon is."""
    answer: pb.GetDaemonStatusResponse = await stub.GetDaemonStatus(
        pb.GetDaemonStatusRequest(), timeout=TIMEOUT
    )
    return answer


async def test_it_says_how_it_is(tmp_path: Path, model_file: Path) -> None:
    """A daemon counts answers, refusals and messages of both kinds, runs, streams and followers."""
    async with service(tmp_path / "d", model_file, flush_interval_s=0.01) as (stub, _):
        fresh = await status(stub)
        assert not fresh.answers
        assert not fresh.refusals
        assert not fresh.store.HasField("since_flush")
        one = await create(stub, "a")
        call: Any = stub.StreamAdvice(timeout=TIMEOUT)
        for message in (
            columns((one, 0, 1.0)),
            columns((one, 0, 1.0), (one, 1, math.nan), (one, 9, 1.0), (7, 0, 1.0)),
        ):
            await call.write(message)
            await call.read()
        await stub.Advise(pb.AdviseRequest(run_id="a", step=2, loss=1.0), timeout=TIMEOUT)  # type: ignore[misc]
        await refused(stub.GetRun(pb.GetRunRequest(run_id="nobody"), timeout=TIMEOUT))
        follower: Any = stub.WatchRun(pb.WatchRunRequest(run_id="a", follow=True), timeout=TIMEOUT)
        await follower.read()
        async with asyncio.timeout(TIMEOUT):
            while (now := await status(stub)).store.unstored_answers:
                pass
        assert {one.reason: one.count for one in now.answers} == {"fresh": 2, "replayed": 1, "held": 1}
        assert {one.reason: one.count for one in now.refusals} == {
            "run_not_found": 1,
            "stale_handle": 1,
            "step_ahead": 1,
        }
        assert list(now.latency.upper_bounds_s) == list(BOUNDS_S)
        assert len(now.latency.counts) == len(BOUNDS_S) + 1
        assert sum(now.latency.counts) == 3
        assert (now.live_runs, now.streams, now.followers) == (1, 1, 1)
        assert (now.pending_barriers, now.ranks_waiting) == (0, 0)
        assert 2**20 < now.resident_memory_bytes < 2**36
        assert abs(time.time() - now.time.ToNanoseconds() / 1e9) < 60
        follower.cancel()
        await call.done_writing()
        async with asyncio.timeout(TIMEOUT):
            while ((now := await status(stub)).streams, now.followers) != (0, 0):
                pass


async def test_it_says_how_its_store_is(
    tmp_path: Path, model_file: Path, stores: list[FailingStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state of the store is that of its flushes, also while it fails or stands still."""
    monkeypatch.setattr(journal, "LATE_S", 0.2)
    async with service(tmp_path / "d", model_file, flush_interval_s=0.01) as (stub, _):
        for step, way in enumerate(("works", "fails", "stands still", "works")):
            stores[0].failing = {"append"} if way == "fails" else set()
            if step == 0:
                await create(stub, "a")
            if way == "stands still":
                stores[0].unblocked.clear()
            else:
                stores[0].unblocked.set()
            answered: Any = stub.Advise(pb.AdviseRequest(run_id="a", step=step, loss=1.0), timeout=TIMEOUT)
            await answered
            async with asyncio.timeout(TIMEOUT):
                while True:
                    store = (await status(stub)).store
                    if store.works == (way == "works") and bool(store.unstored_answers) == (way != "works"):
                        break
            assert store.engine == "sqlite"
            assert (store.flush_failures > 0) == (step > 0)
            assert store.flushes >= 1
            assert store.since_flush.ToNanoseconds() >= 0
            assert store.flush_time.ToNanoseconds() > 0


async def test_ranks_that_wait_are_counted(tmp_path: Path, model_file: Path) -> None:
    """A step that a rank has reported alone counts, with the rank that waits; its message has no latency."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        config = pb.RunConfig(horizon=50, ranks=pb.Ranks())
        opening: Any = stub.OpenRun(pb.OpenRunRequest(run_id="a", config=config, world_size=2))
        handle = (await opening).run_handle
        calls: list[Any] = [stub.StreamAdvice(timeout=TIMEOUT) for _ in range(2)]
        for rank, call in enumerate(calls):
            message = columns((handle, 0, 1.0 + rank))
            message.observations.rank_columns.ranks.append(rank)
            await call.write(message)
            if rank == 0:
                async with asyncio.timeout(TIMEOUT):
                    while not (now := await status(stub)).ranks_waiting:
                        pass
                assert (now.pending_barriers, now.ranks_waiting) == (1, 1)
        for call in calls:
            assert not (await call.read()).advice.errors
            call.cancel()
        now = await status(stub)
        assert (now.pending_barriers, now.ranks_waiting, sum(now.latency.counts)) == (0, 0, 0)
        assert [(one.reason, one.count) for one in now.answers] == [("fresh", 2)]


def test_it_needs_no_library_of_metrics() -> None:
    """All that says how a daemon is can be imported without Prometheus' library, which starts slowly."""
    script = "import sys, mlrs_server.daemon; print('prometheus_client' in sys.modules)"
    ran = subprocess.run(  # our own interpreter
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.strip() == "False"


async def test_a_daemon_alone_is_its_only_replica(tmp_path: Path, model_file: Path) -> None:
    """A daemon that shares its store with no other lists itself, with all shards and no lease."""
    async with service(tmp_path / "d", model_file) as (stub, address):
        await create(stub, "a")
        assert list((await status(stub)).replicas) == [
            pb.Replica(address=address, answering=True, shards=256, unfinished_runs=1)
        ]


async def test_replicas_know_each_other(tmp_path: Path, model_file: Path, postgres: PostgresServer) -> None:
    """Two daemons over one database list both, each with its shards, the runs in them and its lease."""
    shared = {"store": postgres.new_database(), "lease_s": 1.0}
    async with (
        service(tmp_path / "one", model_file, **shared) as (one, address_of_one),
        service(tmp_path / "two", model_file, **shared) as (two, address_of_two),
    ):
        addresses = sorted([address_of_one, address_of_two])

        async def agreed(runs: int) -> dict[str, pb.GetDaemonStatusResponse]:
            """Wait until both agree on who owns what, and on how many runs; return what they say."""
            async with asyncio.timeout(TIMEOUT):
                while True:
                    first, second = await status(one), await status(two)
                    owned, same = (
                        [(replica.shards, replica.unfinished_runs) for replica in now.replicas]
                        for now in (first, second)
                    )
                    totals = tuple(map(sum, zip(*owned, strict=True)))
                    if owned == same and len(owned) == 2 and totals == (256, runs):
                        return {address_of_one: first, address_of_two: second}

        await agreed(0)
        for number in range(20):
            for stub in (one, two):
                with suppress(grpc.aio.AioRpcError):  # the other one owns its shard
                    await create(stub, f"run-{number}")
        for own, now in (await agreed(20)).items():
            assert now.store.engine == "postgresql"
            assert [replica.address for replica in now.replicas] == addresses
            assert [replica.answering for replica in now.replicas] == [
                address == own for address in addresses
            ]
            assert min(replica.unfinished_runs for replica in now.replicas) > 0
            for replica in now.replicas:
                assert 0 < replica.lease_until.ToNanoseconds() - now.time.ToNanoseconds() < 2e9
