"""Adapted weights come back: after a restart, from idleness, and rewound, bit for bit."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from mlrs_core.config import RunConfig
from mlrs_server.domain import updates
from mlrs_server.errors import Reason
from mlrs_server.live import replay
from mlrs_server.live.idle import _drop_idle
from mlrs_server.ops.checking import check_runs
from tests.server.meta.support import EVERY, META, STEPS, Held, learning, left_memory, undisturbed
from tests.server.support import LOSSES, harness, raises, until


@pytest.mark.parametrize("kept_every", [1, 4, 1000], ids=lambda every: f"kept-every-{every}")
async def test_a_run_goes_on_after_restarts(
    tmp_path: Path,
    model: Path | None,
    config: RunConfig,
    kept_every: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that is taken up by a new daemon again and again is told what one is that stays in memory."""
    monkeypatch.setattr(updates, "CHECKPOINT_UPDATES", kept_every)
    expected = await undisturbed(tmp_path / "calm", model, config)
    lrs: list[float] = []
    for start, end in ((0, 10), (10, 11), (11, 12), (12, 47), (47, 48), (48, STEPS)):
        async with harness(tmp_path / "restarted", model) as there:
            run = await learning(there, config=config)
            await run.go(LOSSES[start:end].tolist(), start)
            await there.live.journal.flush()
            lrs += run.lrs
    assert [lr.hex() for lr in lrs] == [lr.hex() for lr in expected]


async def test_a_run_comes_back_from_idleness(tmp_path: Path, model: Path | None, config: RunConfig) -> None:
    """A run that left memory, its network with it, goes on as if it had stayed."""
    expected = await undisturbed(tmp_path / "calm", model, config)
    async with harness(tmp_path / "idle", model) as there:
        run = await learning(there, config=config)
        await run.go(LOSSES[:40].tolist())
        await there.live.journal.flush()
        await left_memory(there)
        run.opened = await there.open("run")
        await run.go(LOSSES[40:STEPS].tolist(), 40)
    assert run.lrs == expected


async def test_a_network_is_stored_by_the_flush_after_one_that_failed(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush that fails leaves the networks that were to be stored with it to the next one that works."""
    monkeypatch.setattr(updates, "CHECKPOINT_UPDATES", 4)
    async with harness(tmp_path, model_file) as there:
        run = await learning(there)
        await run.go(LOSSES[: 4 * EVERY].tolist())
        there.store.failing = {"append"}
        for _ in range(2):
            with raises(Reason.STORE):
                await there.live.journal.flush()
        there.store.failing.clear()
        await there.live.journal.flush()
        stored = await there.stored.get("run")
        replayed = await there.stored.replay(stored)
        assert (replayed.network_step, replayed.updates_since) == (4 * EVERY, 0)


async def test_updates_made_while_a_network_is_stored_count_towards_the_next(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Updates that come while the store writes a network are not taken for part of it."""
    monkeypatch.setattr(updates, "CHECKPOINT_UPDATES", 4)
    async with harness(tmp_path, model_file) as there:
        run = await learning(there)
        await run.go(LOSSES[: 4 * EVERY].tolist())
        there.store.unblocked.clear()
        flush = asyncio.create_task(there.live.journal.flush())
        await until(lambda: "append" in there.store.calls)
        await run.go(LOSSES[4 * EVERY : 7 * EVERY].tolist(), 4 * EVERY)
        there.store.unblocked.set()
        await flush
        await run.go(LOSSES[7 * EVERY : 8 * EVERY].tolist(), 7 * EVERY)
        await there.live.journal.flush()
        stored = await there.stored.get("run")
        assert (await there.stored.replay(stored)).network_step == 8 * EVERY


async def test_an_update_that_is_not_stored_keeps_its_run_in_memory(tmp_path: Path, model_file: Path) -> None:
    """A run whose newest update waits to be stored does not leave memory."""
    async with harness(tmp_path, model_file) as there:
        run = await learning(there)
        await run.go([2.0, 1.9])
        await there.live.journal.flush()
        await run.update(1, 1.0)
        (group,) = there.live.groups
        group.generation += 100
        assert await _drop_idle(there.live, group) == 0
        await there.live.journal.flush()
        group.generation += 100
        assert await _drop_idle(there.live, group) == 1


async def test_an_update_made_during_a_flush_is_not_stored_by_it(tmp_path: Path, model_file: Path) -> None:
    """A run that was stored without its newest update stays in memory, and the update is made once."""
    async with harness(tmp_path, model_file) as there:
        run, twin = await learning(there), await learning(there, "twin")
        for one in (run, twin):
            await one.go(LOSSES[:4].tolist())
        there.store.unblocked.clear()
        calls = len(there.store.calls)
        flush = asyncio.create_task(there.live.journal.flush())
        await until(lambda: len(there.store.calls) > calls)
        for one in (run, twin):
            await one.update(3)
        there.store.unblocked.set()
        await flush
        there.store.failing.add("append")  # and fails for as long as runs are idle
        (group,) = there.live.groups
        group.generation += 100
        assert await _drop_idle(there.live, group) == 0
        there.store.failing.clear()
        run.opened = await there.open("run", META)
        await run.update(3)
        for one in (run, twin):
            await one.go(LOSSES[4:20].tolist(), 4)
        assert run.lrs == twin.lrs


async def test_a_recovery_is_short_long_after_the_last_update(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network is stored every so many steps also where no update changed it since."""
    monkeypatch.setattr(updates, "CHECKPOINT_STEPS", 10)
    async with harness(tmp_path, model_file) as there:
        run, idle = await learning(there), await learning(there, "idle")
        await run.go([2.0, 1.9, 1.8])
        for step in range(3, 100):
            await there.ask(run.opened.handle, step, 1.7)
            await there.ask(idle.opened.handle, step - 3, 1.7)
            await there.live.journal.flush()
        stored = await there.stored.get_all(["run", "idle"])
        replayed = await there.stored.replay(stored[0])
        assert stored[0].snapshot.next_step - replayed.network_step <= 10
        assert await there.stored.in_store(lambda store: store.network(stored[1].key)) is None


async def test_others_are_stored_while_a_run_is_recovered(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a run is computed again, which takes as long as it takes, what others were told is stored."""
    expected = await undisturbed(tmp_path / "calm", model_file, META)
    async with harness(tmp_path / "d", model_file) as before:
        await (await learning(before)).go(LOSSES[:40].tolist())
    held = Held(monkeypatch)
    async with harness(tmp_path / "d", model_file) as there:
        other = (await there.open("other")).handle
        opening = asyncio.create_task(learning(there))
        await until(held.begun.is_set)
        await there.follow(other, LOSSES[:5])
        async with asyncio.timeout(20):
            await there.live.journal.flush()
        assert not opening.done()
        held.unblocked.set()
        run = await opening
        await run.go(LOSSES[40:STEPS].tolist(), 40)
    assert run.lrs == expected[40:]


async def test_a_recovery_that_nobody_waits_for_reads_no_more(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that goes away leaves its recovery without the store: it may be closed by then."""
    monkeypatch.setattr(replay, "PAGE", 10)
    async with harness(tmp_path / "d", model_file) as before:
        run = await learning(before)
        for first in range(0, 40, 10):
            await run.go(LOSSES[first : first + 10].tolist(), first)
            await before.live.journal.flush()
    held = Held(monkeypatch)
    async with harness(tmp_path / "d", model_file) as there:
        stored = await there.stored.get("run")
        call = asyncio.create_task(there.stored.replay(stored))
        await until(held.begun.is_set)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        reads = there.store.calls.count("read")
        held.unblocked.set()
        assert (await there.stored.replay(stored)).updates_since == 13  # of a thread beside the other
        assert there.store.calls.count("read") == reads + 4


@pytest.mark.parametrize("step", [0, 1, 2, 3, 44, 45, 46, 59, 60])
async def test_a_rewound_run_never_went_further(
    tmp_path: Path, model_file: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rewound to any step, a run has the updates of the steps before, and goes on as if it had no others."""
    monkeypatch.setattr(updates, "CHECKPOINT_UPDATES", 5)
    expected = await undisturbed(tmp_path / "calm", model_file, META)
    async with harness(tmp_path / "rewound", model_file) as there:
        run = await learning(there)
        await run.go(LOSSES[:60].tolist())
        for _ in range(12):  # networks of all ages are stored
            await there.live.journal.flush()
        run.opened = await there.open("run", resume_from=step)
        run.lrs.clear()
        await run.go(LOSSES[step:STEPS].tolist(), step)
        assert run.lrs == expected[step:]
        stored = await there.stored.get("run")
        made = await there.stored.in_store(lambda store: store.read_updates(stored.key, 0, STEPS))
    assert [update.step for update in made] == list(range(EVERY - 1, STEPS, EVERY))


async def test_a_stored_run_is_checked_with_its_updates(tmp_path: Path, model_file: Path) -> None:
    """`mlrs store check` makes runs again with their updates, and sees where one was changed."""
    async with harness(tmp_path, model_file) as there:
        run = await learning(there)
        await run.go(LOSSES[:20].tolist())
        await there.live.journal.flush()
        found = await there.stored.in_store(lambda store: list(check_runs(store, there.catalog)))  # type: ignore[arg-type]
        assert [(one.steps, one.problem) for one in found] == [(20, "")]
        with sqlite3.connect(tmp_path / "mlrs.sqlite3") as file:
            file.execute("DELETE FROM meta_updates WHERE step = 8")
        (one,) = await there.stored.in_store(lambda store: list(check_runs(store, there.catalog)))  # type: ignore[arg-type]
        assert "learning rate at step 9" in one.problem


async def test_a_deleted_run_leaves_nothing(tmp_path: Path, model_file: Path) -> None:
    """With a run go its updates and its network; another's stay."""
    async with harness(tmp_path, model_file) as there:
        run, other = await learning(there), await learning(there, "other")
        await run.go(LOSSES[:20].tolist())
        await other.go(LOSSES[:20].tolist())
        await there.live.journal.flush()
        stored = await there.stored.get("run")
        await there.ending.delete("run")
        assert await there.stored.in_store(lambda store: store.read_updates(stored.key, 0, 100)) == []
        kept = await there.stored.get("other")
        assert len(await there.stored.in_store(lambda store: store.read_updates(kept.key, 0, 100))) == 6
