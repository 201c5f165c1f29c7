"""The ranks of a run as `GetRun` shows them: who is missing, how long others wait, and who was missing."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mlrs_core.config import RanksConfig, RunConfig
from mlrs_proto import v1 as pb
from mlrs_server.ranks import status as rank_statuses
from mlrs_server.ranks.status import RankStatus
from tests.server.support import Harness, columns, create, harness, service, until

HURRIED = RunConfig(horizon=50, ranks=RanksConfig(straggler_timeout_s=0.02, quorum=0.5))
PATIENT = RunConfig(horizon=50, ranks=RanksConfig())


def status_of(here: Harness) -> RankStatus:
    """Return the ranks of the run `a`."""
    status = here.rank_reducer.status("a")
    assert status is not None
    return status


async def test_who_is_missing_is_seen(tmp_path: Path, model_file: Path) -> None:
    """Ranks that have not reported a step are listed until it is answered; the wait is that of the first."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("a", PATIENT, world_size=4)).handle
        assert status_of(here) == RankStatus(0, 0, [], None, [])
        waiting = []
        for rank in (2, 0):
            waiting.append(asyncio.create_task(here.report(handle, [(0, rank, 1.0)])))
            await until(lambda: status_of(here).reported == len(waiting))
        seen, before = status_of(here), asyncio.get_running_loop().time()
        assert (seen.step, seen.reported, seen.missing, seen.misses) == (0, 2, [1, 3], [])
        assert seen.waiting_s is not None
        await until(lambda: asyncio.get_running_loop().time() > before)
        assert (status_of(here).waiting_s or 0.0) > seen.waiting_s > 0.0
        await here.report(handle, [(0, 1, 1.0), (0, 3, 1.0)])
        await asyncio.gather(*waiting)
        assert status_of(here) == RankStatus(1, 0, [], None, [])


async def test_reports_outlive_their_streams_and_nobody_waits(tmp_path: Path, model_file: Path) -> None:
    """A rank whose stream has ended has reported all the same, and does not wait."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("a", PATIENT, world_size=2)).handle
        gone = asyncio.create_task(here.report(handle, [(0, 1, 1.0)]))
        await until(lambda: status_of(here).reported > 0)
        gone.cancel()
        with suppress(asyncio.CancelledError):
            await gone
        assert status_of(here) == RankStatus(0, 1, [0], None, [])


async def test_missing_ranks_are_counted(tmp_path: Path, model_file: Path) -> None:
    """A rank counts as missing when a step is answered without it, until the run leaves memory."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("a", HURRIED, world_size=4)).handle
        for step, ranks in enumerate([(0, 1), (0, 1, 2), (0, 1, 2, 3), (1, 2)]):
            await here.report(handle, [(step, rank, 1.0) for rank in ranks])
        assert status_of(here).misses == [(3, 3), (0, 1), (2, 1)]
        assert (await here.open("a", world_size=3, resume_from=1)).handle != handle
        assert status_of(here).misses == [(3, 3), (0, 1), (2, 1)]
        await here.ending.delete("a")
        assert here.rank_reducer.status("a") is None
        await here.open("a", HURRIED, world_size=4)
        assert status_of(here).misses == []


async def test_lists_are_bounded(tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many ranks, the lowest that are missing and those that were missing most often are listed."""
    monkeypatch.setattr(rank_statuses, "MOST_MISSING", 2)
    monkeypatch.setattr(rank_statuses, "MOST_MISSES", 2)
    async with harness(tmp_path, model_file) as here:
        live = (await here.open("a", PATIENT, world_size=8)).handle
        waiting = asyncio.create_task(here.report(live, [(0, rank, 1.0) for rank in (7, 6, 5, 1)]))
        await until(lambda: status_of(here).reported > 0)
        slot = here.live.find("a")
        assert slot is not None
        slot.group.misses[slot.row] = Counter({4: 1, 3: 9, 5: 9, 2: 10})
        seen = status_of(here)
        assert (seen.reported, seen.missing, seen.misses) == (4, [0, 2], [(2, 10), (3, 9)])
        waiting.cancel()


async def test_get_run_shows_ranks(tmp_path: Path, model_file: Path) -> None:
    """`GetRun` carries the ranks of a run that has some; those of a run without ranks are unset."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        await create(stub, "plain")
        ranks = pb.Ranks(quorum=0.5)
        ranks.straggler_timeout.FromMilliseconds(20)
        request = pb.OpenRunRequest(run_id="a", config=pb.RunConfig(horizon=9, ranks=ranks), world_size=2)
        opening: Any = stub.OpenRun(request)
        handle = (await opening).run_handle
        call: Any = stub.StreamAdvice(timeout=20)
        message = columns((handle, 0, 1.0))
        message.observations.rank_columns.ranks.append(1)
        await call.write(message)
        assert not (await call.read()).advice.errors
        seen: Any = await stub.GetRun(pb.GetRunRequest(run_id="a"))  # type: ignore[misc]
        assert seen.ranks == pb.RankStatus(step=1, misses=[pb.RankMisses(rank=0, steps=1)])
        plain: Any = await stub.GetRun(pb.GetRunRequest(run_id="plain"))  # type: ignore[misc]
        assert not plain.HasField("ranks")
        call.cancel()
