"""Runs that nobody observes leave memory, and come back as they were."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrs_core.config import RunConfig
from mlrs_core.models.checkpoint import read_model
from mlrs_core.policy import Policy
from mlrs_server.domain.run_snapshot import first_snapshot
from mlrs_server.errors import Reason
from mlrs_server.live import idle
from mlrs_server.live.arrays import SMALLEST, RunGroup
from tests.server.support import LOSSES, Harness, harness, observed, replayed
from tests.support.daemon import write_random_model


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """A small network, ready to compute."""
    return read_model(write_random_model(tmp_path_factory.mktemp("model") / "m.safetensors"))[0].policy()


async def generations(here: Harness, count: int) -> None:
    """Let so many generations go by."""
    for _ in range(count):
        for group in here.live.groups:
            await idle._drop_idle(here.live, group)


async def test_idle_runs_leave_and_come_back(tmp_path: Path, model_file: Path) -> None:
    """A run not observed for all generations leaves memory; opened again, it goes on as if it had stayed."""
    async with harness(tmp_path / "d", model_file) as here:
        idler, busy = await here.open("idler"), await here.open("busy")
        lrs = [await here.follow(idler.handle, LOSSES[:5])]
        for step in range(idle.GENERATIONS + 1):
            assert here.live.find("idler") is not None
            await here.follow(busy.handle, LOSSES[step : step + 1], start=step)
            await here.live.journal.flush()
            await generations(here, 1)
        assert here.live.find("idler") is None
        assert here.live.find("busy") is not None
        stale = await here.ask(idler.handle, 5, LOSSES[5])
        assert stale.errors[0].reason == Reason.STALE_HANDLE
        again = await here.open("idler")
        assert (again.created, again.view.snapshot.next_step, again.view.durable_step) == (False, 5, 4)
        lrs.append(await here.follow(again.handle, LOSSES[5:12], start=5))
        alone = replayed(here.catalog.find("").policy, RunConfig(), LOSSES[:12])
        assert np.concatenate(lrs).tobytes() == alone.tobytes()


async def test_what_is_not_stored_stays(tmp_path: Path, model_file: Path) -> None:
    """A run whose newest answer is not stored stays in memory, however idle, until it is."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        here.store.failing = {"append"}
        await here.follow(opened.handle, LOSSES[:3])
        await generations(here, 3 * idle.GENERATIONS)
        assert here.live.find("a") is not None
        here.store.failing.clear()
        await here.live.journal.flush()
        await generations(here, 1)
        assert here.live.find("a") is None


async def test_what_a_call_is_about_stays(tmp_path: Path, model_file: Path) -> None:
    """A run that a call holds the lock of stays in memory meanwhile."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a")
        async with here.live.lock("a"):
            await generations(here, 2 * idle.GENERATIONS)
            assert here.live.find("a") is not None
        await generations(here, 1)
        assert here.live.find("a") is None


async def test_memory_comes_back(tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When most runs have left, their arrays shrink; those that stay keep their handles and states."""
    monkeypatch.setattr(idle, "AT_ONCE", 7)
    async with harness(tmp_path / "d", model_file) as here:
        runs = [await here.open(f"run-{index}") for index in range(100)]
        lrs = [await here.follow(runs[0].handle, LOSSES[:3])]
        await here.live.journal.flush()
        group = here.live.groups[0]
        assert len(group.records) >= 100
        await generations(here, idle.GENERATIONS)
        lrs.append(await here.follow(runs[0].handle, LOSSES[3:4], start=3))
        await here.live.journal.flush()
        await generations(here, 1)
        assert len(group.records) == len(group.states) == len(group.table) == SMALLEST
        assert [here.live.find(f"run-{index}") is None for index in range(100)] == [False] + [True] * 99
        lrs.append(await here.follow(runs[0].handle, LOSSES[4:9], start=4))
        alone = replayed(here.catalog.find("").policy, RunConfig(), LOSSES[:9])
        assert np.concatenate(lrs).tobytes() == alone.tobytes()


async def test_it_looks_by_itself(tmp_path: Path, model_file: Path) -> None:
    """Runs leave within a quarter more than the idle time, without anyone asking."""
    async with harness(tmp_path / "d", model_file, flush_interval_s=0.01) as here:
        await here.open("a")
        task = asyncio.create_task(idle.drop_idle_runs(here.live, 0.04))
        async with asyncio.timeout(10):
            while here.live.find("a") is not None:  # noqa: ASYNC110 # what is waited for is that it goes
                await asyncio.sleep(0.005)
        task.cancel()


@given(
    moves=st.lists(st.tuples(st.sampled_from(["add", "add", "free", "shrink", "step"]), st.integers(0, 99)))
)
def test_rows_come_and_go(policy: Policy, moves: list[tuple[str, int]]) -> None:
    """Whatever rows are taken, freed and cut off, in any order, every run that stays has its own state."""
    group = RunGroup(0, "", policy)
    losses: dict[int, list[float]] = {}
    for move, number in moves:
        rows = sorted(losses)
        if move == "add":
            row = group.reserve()
            group.shrink()
            group.put(row, f"run at {row}", 1, RunConfig(), first_snapshot(policy))
            assert row not in losses
            losses[row] = []
        elif move == "shrink":
            group.shrink()
        elif rows and move == "free":
            row = rows[number % len(rows)]
            group.close(row)
            group.free(row)
            del losses[row]
        elif rows:
            row = rows[number % len(rows)]
            message = observed(int(group.records["handle"][row]), len(losses[row]), 0.5 + number)
            losses[row].append(0.5 + number)
            group.answer(message)
            assert message.lrs[0] == replayed(policy, RunConfig(), losses[row])[-1]
    assert group.is_empty() == (not losses)
    assert [group.run_ids[row] for row in losses] == [f"run at {row}" for row in losses]
