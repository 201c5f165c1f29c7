"""What a daemon reports of itself, of ranks and of aliases, with a real daemon, in both flavours."""

from __future__ import annotations

import datetime as dt
import math
from importlib.metadata import version
from typing import Any

import grpc
import pytest

import mlrs
from mlrs.types import AliasChange, LatencyHistogram, RankMisses, RankStatus, ReplicaInfo
from mlrs_proto import v1 as pb
from tests.client.conftest import done
from tests.support.daemon import Daemon
from tests.support.runs import opened
from tests.support.stubs import Stub


async def test_the_daemon_names_itself(asking: Any) -> None:
    """`daemon` says the version, since when it serves, and that it stays."""
    info = await done(asking.daemon())
    assert info.version == version("mlrs")
    assert info.exit_after_idle_s is None
    assert dt.timedelta() <= dt.datetime.now(dt.UTC) - info.start_time < dt.timedelta(hours=1)


async def test_the_daemon_says_how_it_is(asking: Any, real: Daemon) -> None:
    """`status` counts what the client does, and names the store and the daemon alone."""
    before = await done(asking.status())
    run = await opened(asking, f"counted-{type(asking).__module__}")
    for step in range(3):
        await done(run.next_lr(step, 1.0))
    with pytest.raises(mlrs.errors.RunNotFoundError):
        await done(asking.get_run("nobody"))
    now = await done(asking.status())
    assert now.answers["fresh"] - before.answers.get("fresh", 0) == 3
    assert now.refusals["run_not_found"] - before.refusals.get("run_not_found", 0) == 1
    assert sum(now.latency.counts) - sum(before.latency.counts) == 3
    assert 0 < (now.latency.bound_of(0.5) or 0.0) <= (now.latency.bound_of(1.0) or 0.0)
    assert (now.streams, now.pending_barriers, now.ranks_waiting) == (1, 0, 0)
    assert now.live_runs >= 1
    assert now.resident_memory_bytes > 2**20
    assert (now.store.engine, now.store.works, now.store.flush_failures) == ("sqlite", True, 0)
    assert now.time >= before.time
    (alone,) = now.replicas
    assert alone == ReplicaInfo(
        address=real.address,
        answering=True,
        shards=256,
        unfinished_runs=alone.unfinished_runs,
        lease_until=None,
    )


async def test_ranks_that_were_missing_are_told(asking: Any) -> None:
    """`get_run` says who was missing, and a list does not; a run without ranks has none."""
    run_id = f"ranked-{type(asking).__module__}"
    options = {"rank": 1, "world_size": 2, "straggler_timeout_s": 0.02, "quorum": 0.5}
    run = await opened(asking, run_id, horizon=9, **options)
    await done(run.next_lr(0, 1.0))
    expected = RankStatus(
        world_size=2, step=1, reported=0, missing=(), waiting_s=None, misses=(RankMisses(rank=0, steps=1),)
    )
    assert (await done(asking.get_run(run_id))).ranks == expected
    assert [run.ranks for run in (await done(asking.run_page(prefix=run_id))).runs] == [None]
    await opened(asking, f"plain-{run_id}")
    assert (await done(asking.get_run(f"plain-{run_id}"))).ranks is None


async def test_an_alias_has_a_history(asking: Any, real: Daemon) -> None:
    """`alias_changes` lists what an alias has pointed at, the newest first; an unknown one is an error."""
    alias = f"mine-{type(asking).__module__.replace('.', '-')}"
    async with grpc.aio.insecure_channel(real.address) as channel:
        for model in ("tiny", "mlr-snet"):
            setting: Any = Stub(channel).SetAlias(pb.SetAliasRequest(alias=alias, model=model), timeout=20)
            await setting
    newest, first = await done(asking.alias_changes(alias))
    assert newest == AliasChange(time=newest.time, model=newest.model, cause="set")
    assert (newest.model.partition("@")[0], first.model.partition("@")[0]) == ("mlr-snet", "tiny")
    assert newest.time > first.time
    with pytest.raises(mlrs.errors.ModelNotFoundError):
        await done(asking.alias_changes("nobodys"))


@pytest.mark.parametrize(
    ("counts", "median", "most"),
    [
        ((0, 0, 0), None, None),
        ((3, 1, 0), 0.1, 1.0),
        ((1, 0, 3), math.inf, math.inf),
        ((1, 1, 0), 0.1, 1.0),
    ],
)
def test_a_share_has_a_bound(counts: tuple[int, ...], median: float | None, most: float | None) -> None:
    """`bound_of` is the least bound that a share of the messages did not exceed; none without messages."""
    histogram = LatencyHistogram(upper_bounds_s=(0.1, 1.0), counts=counts)
    assert (histogram.bound_of(0.5), histogram.bound_of(1.0)) == (median, most)
