"""The overview of replicas: who owns how much, and when the store is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from mlrs_server.cluster import overview
from mlrs_server.cluster.overview import Overview, UnfinishedRuns
from mlrs_server.domain.shards import SHARDS
from mlrs_server.storage import SqlStore
from tests.server.cluster.conftest import Join, Member, expire
from tests.server.support import harness

RUNS = [f"run-{number}" for number in range(40)]


def overview_of(member: Member) -> Overview:
    """Return the overview that a replica has."""
    return Overview(member.harness.stored, member.sharing.ownership)


async def test_replicas_share_shards_and_runs(join: Join, store: SqlStore) -> None:
    """Every replica says the same of all: addresses, shards, unfinished runs and leases; it marks itself."""
    async with join("one:1") as one:
        for run_id in (*RUNS, "acme!theirs"):
            await one.harness.open(run_id)
        await one.harness.finish(RUNS[0])
        (alone,) = await overview_of(one).replicas("")
        assert (alone.address, alone.is_answering, alone.shards) == ("one:1", True, SHARDS)
        assert alone.unfinished_runs == len(RUNS) - 1
        async with join("two:2") as two:
            while len(one.shards) == SHARDS or len(one.shards) + len(two.shards) < SHARDS:
                await one.replica.reconcile()  # gives shards away, which takes a moment
                await two.replica.reconcile()
                await asyncio.sleep(0.01)
            await one.replica.reconcile()
            for member in (one, two):
                first, second = await overview_of(member).replicas("")
                assert [first.address, second.address] == ["one:1", "two:2"]
                assert [first.is_answering, second.is_answering] == [member is one, member is two]
                assert (first.shards, second.shards) == (len(one.shards), len(two.shards))
                assert first.shards + second.shards == SHARDS
                assert first.unfinished_runs + second.unfinished_runs == len(RUNS) - 1
                assert min(first.unfinished_runs, second.unfinished_runs) > 0
                assert all(replica.lease_until is not None for replica in (first, second))
            theirs = await overview_of(two).replicas("acme")
            assert sum(replica.unfinished_runs for replica in theirs) == 1
            expire(store, two)
            await one.replica.reconcile()
            (left,) = await overview_of(one).replicas("")
            assert (left.address, left.shards, left.unfinished_runs) == ("one:1", SHARDS, len(RUNS) - 1)


async def test_a_daemon_alone_owns_everything(tmp_path: Path, model_file: Path) -> None:
    """A daemon that shares its store with no other owns all shards, without a lease."""
    async with harness(tmp_path, model_file) as here:
        seen = Overview(here.stored, None)
        seen.address = "here:1"
        await here.open("a")
        (alone,) = await seen.replicas("")
        assert (alone.address, alone.is_answering, alone.shards) == ("here:1", True, SHARDS)
        assert (alone.unfinished_runs, alone.lease_until) == (1, None)


async def test_what_the_store_has_not_said_is_unknown(tmp_path: Path, model_file: Path) -> None:
    """While the store fails, the number of unfinished runs is not known, rather than 0."""
    async with harness(tmp_path, model_file) as here:
        await here.open("a")
        here.store.failing.add("unfinished_by_shard")
        (alone,) = await Overview(here.stored, None).replicas("")
        assert alone.unfinished_runs is None


async def test_the_store_is_asked_seldom(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers at the same time share a count, and readers soon after it get the one before."""
    async with harness(tmp_path, model_file) as here:
        counted = UnfinishedRuns(here.stored)
        await here.open("a")
        seen: list[Mapping[int, int]] = await asyncio.gather(*(counted.by_shard("") for _ in range(5)))
        await here.open("b")
        seen.append(await counted.by_shard(""))
        assert [sum(one.values()) for one in seen] == [1] * 6
        assert here.store.calls.count("unfinished_by_shard") == 1
        monkeypatch.setattr(overview, "REST", 0)
        monkeypatch.setattr(overview, "LEAST_REST_S", 0.0)
        later = UnfinishedRuns(here.stored)
        assert [sum((await later.by_shard("")).values()) for _ in range(2)] == [2, 2]
        assert here.store.calls.count("unfinished_by_shard") == 3


@pytest.mark.parametrize("how", ["fails", "stands still"])
async def test_a_store_that_does_not_answer_delays_nobody(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """While the store fails or stands still, readers get the count before, and the next one afterwards."""
    monkeypatch.setattr(overview, "LONGEST_WAIT_S", 0.05)
    monkeypatch.setattr(overview, "REST", 0)
    monkeypatch.setattr(overview, "LEAST_REST_S", 0.0)
    async with harness(tmp_path, model_file) as here:
        counted = UnfinishedRuns(here.stored)
        await here.open("a")
        assert sum((await counted.by_shard("")).values()) == 1
        await here.open("b")
        if how == "fails":
            here.store.failing = {"unfinished_by_shard"}
        else:
            here.store.unblocked.clear()
        for _ in range(2):
            assert sum((await counted.by_shard("")).values()) == 1
        here.store.failing = set()
        here.store.unblocked.set()
        async with asyncio.timeout(20):
            while sum((await counted.by_shard("")).values()) != 2:
                pass
