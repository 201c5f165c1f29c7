"""Signals and validation losses are part of an observation: recorded once, compared, and replayed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from mlrs_core.config import MetaConfig, Optimizer, RunConfig
from mlrs_core.models.checkpoint import dump_model
from mlrs_core.networks.tail import TailSpec
from mlrs_core.policy import Floats
from mlrs_server.domain import updates
from mlrs_server.domain.extras import LOSS, STEP, SparseExtras, agree, is_sent, none_sent
from mlrs_server.domain.ledger import AdviceReason
from mlrs_server.domain.updates import MetaUpdate
from mlrs_server.errors import Reason
from mlrs_server.live.arrays import RunGroup
from mlrs_server.live.replay import Replay
from mlrs_server.ops.checking import check_runs
from mlrs_server.storage import Observations, open_store
from mlrs_server.storage.backups import back_up
from mlrs_server.storage.chunks import pack_chunk
from mlrs_server.storage.tables import observations
from tests.core.networks.families import random_model
from tests.server.meta.support import learning
from tests.server.sensing import SENSING, Sensing, extras_at, extras_of, install
from tests.server.support import LOSSES, Asked, Harness, harness, raises

STEPS = 60


@pytest.fixture(autouse=True)
def _sensing(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def undisturbed(end: int = STEPS) -> Floats:
    """Return the learning rates of a run of that many steps to which nothing happens, by an own account."""
    policy, state, lrs = Sensing(), Sensing().init_state(1), np.empty(1)
    none, row, found = np.zeros((1, 0), np.float32), np.zeros(1, np.int64), []
    for step in range(end):
        columns = extras_at(step)[None, :STEP]
        signals = np.where(np.isfinite(columns), columns, np.nan)
        policy.advance(state, none, np.zeros(1), row, row, LOSSES[step : step + 1], signals, lrs)
        found.append(float(lrs[0]))
    return np.array(found)


async def go(here: Harness, handle: int, start: int, end: int, *, at_once: int = 1) -> list[float]:
    """Send steps with their extras, some in each message; return their learning rates."""
    lrs = []
    for first in range(start, end, at_once):
        last = min(first + at_once, end)
        steps = np.arange(first, last)
        asked = await here.ask(np.full(len(steps), handle), steps, LOSSES[first:last], extras_of(first, last))
        assert not asked.errors, asked.errors
        lrs += asked.lrs.tolist()
    return lrs


async def record_of(here: Harness, key: int, end: int) -> Observations:
    """Return the stored record of a run."""
    await here.live.journal.flush()
    return await here.stored.in_store(lambda store: store.read(key, 0, end))


def said(asked: Asked) -> str:
    """Return why the only entry was refused."""
    assert math.isnan(asked.lrs[0])
    assert asked.errors[0].reason == Reason.STALE_STEP
    return str(asked.errors[0])


@pytest.mark.parametrize("at_once", [1, 7, STEPS])
async def test_advice_depends_on_what_comes_with_observations(tmp_path: Path, at_once: int) -> None:
    """A policy gets signals and validation losses, without what is not finite, in messages of any size."""
    async with harness(tmp_path, None) as here:
        handle = (await here.open("run", SENSING)).handle
        assert await go(here, handle, 0, STEPS, at_once=at_once) == undisturbed().tolist()


async def test_a_run_beside_others_gets_its_own_signals(tmp_path: Path) -> None:
    """In a message of several runs and groups, each observation has its own extras."""
    other = RunConfig(horizon=9, schedule=SENSING.schedule, max_lr=100.0)
    async with harness(tmp_path, None) as here:
        handles = [(await here.open("a", SENSING)).handle, (await here.open("b", other)).handle]
        handles.append((await here.open("net")).handle)
        for step in range(20):
            extras = np.stack([extras_at(step), none_sent(1)[0], extras_at(step + 1)])
            asked = await here.ask(handles, [step] * 3, LOSSES[[step] * 3], extras)
            assert not asked.errors
            assert asked.lrs[0] == undisturbed(step + 1)[-1]
        keys = [int(here.live.find(name).record["key"]) for name in ("a", "b")]  # type: ignore[union-attr]
        assert len((await record_of(here, keys[0], 20)).extras) == 14
        assert len((await record_of(here, keys[1], 20)).extras) == 0


@pytest.mark.parametrize("where", ["memory", "log", "store", "stored and reopened", "stored and older"])
async def test_a_step_is_replayed_with_the_same_extras_only(tmp_path: Path, where: str) -> None:
    """Sent again, a step is answered with the same extras or without, and refused with any others."""
    async with harness(tmp_path, None) as here:
        handle = (await here.open("run", SENSING)).handle
        expected = await go(here, handle, 0, 6)
        if where in {"log", "stored and older"}:
            expected += await go(here, handle, 6, 12)
        if where.startswith("store"):
            await here.live.journal.flush()
    async with harness(tmp_path, None) as here:  # closing stores everything
        handle = (await here.open("run", SENSING)).handle
        if where == "memory":
            expected += await go(here, handle, 6, 7)
        await check_replays(here, handle, expected)
        assert await go(here, handle, len(expected), 20) == undisturbed(20)[len(expected) :].tolist()


async def check_replays(here: Harness, handle: int, expected: Sequence[float]) -> None:
    """Send every step again: with its extras, without them, and with others."""
    for step, lr in enumerate(expected):
        again = await here.ask(handle, step, LOSSES[step], extras_at(step))
        assert not again.errors
        assert (again.lrs[0], again.reasons[0]) == (lr, AdviceReason.REPLAYED)
        without = await here.ask(handle, step, LOSSES[step])
        assert (without.lrs[0], without.reasons[0]) == (lr, AdviceReason.REPLAYED)
        other = extras_at(step)
        other[2] = 77.0
        assert f"step: {step} of run 'run' was answered with" in (
            text := said(await here.ask(handle, step, LOSSES[step], other))
        )
        assert "grad_norm2" in text
        assert "and comes now with the grad_norm2 77.0" in text
        told = extras_at(step)
        told[LOSS], told[STEP] = 0.25, step
        assert "validation_" in said(await here.ask(handle, step, LOSSES[step], told))
        assert "was answered for the loss" in said(await here.ask(handle, step, 99.0, extras_at(step)))


async def test_the_newest_step_in_memory_is_replayed_with_the_same_extras_only(tmp_path: Path) -> None:
    """Before anything was stored, the log tells what the newest and older steps came with."""
    async with harness(tmp_path, None) as here:
        handle = (await here.open("run", SENSING)).handle
        expected: list[float] = []
        for step in range(9):
            expected += await go(here, handle, step, step + 1)
            await check_replays(here, handle, expected)


async def test_repeated_steps_of_one_message_are_compared_too(tmp_path: Path) -> None:
    """In one message, a step with the same extras or none is replayed, and one with others is refused."""
    async with harness(tmp_path, None) as here:
        handle = (await here.open("run", SENSING)).handle
        first, second = extras_at(1), extras_at(2)
        extras = np.stack([first, first, second, none_sent(1)[0], none_sent(1)[0], first])
        asked = await here.ask([handle] * 6, [0, 0, 0, 0, 1, 1], LOSSES[[0, 0, 0, 0, 1, 1]], extras)
        assert sorted(asked.errors) == [2, 5]
        assert asked.reasons.tolist() == [
            AdviceReason.FRESH,
            AdviceReason.REPLAYED,
            0,
            AdviceReason.REPLAYED,
            AdviceReason.FRESH,
            0,
        ]
        assert asked.lrs[0] == asked.lrs[1] == asked.lrs[3]


async def test_a_run_goes_on_bit_for_bit_after_restarts_rewinds_and_failed_flushes(tmp_path: Path) -> None:
    """However often it is stored, loaded, rewound and its flush repeated, a run gets the same advice."""
    expected, lrs = undisturbed().tolist(), list[float]()
    for start, end in ((0, 10), (10, 11), (11, 13), (13, 40), (40, STEPS)):
        async with harness(tmp_path, None) as here:
            handle = (await here.open("run", SENSING)).handle
            twin = (await here.open(f"twin-{start}", SENSING)).handle
            lrs += await go(here, handle, start, (start + end) // 2)
            await go(here, twin, 0, 5)
            here.store.failing = {"append"}
            with raises(Reason.STORE, match="the disk is full"):
                await here.live.journal.flush()
            lrs += await go(here, handle, (start + end) // 2, end)
            await go(here, twin, 5, 9)
            here.store.failing.clear()
            await here.live.flush(["run"])  # and not the twin's answers
            back = max(start - 3, 0)
            handle = (await here.open("run", SENSING, resume_from=back)).handle
            assert await go(here, handle, back, end, at_once=5) == expected[back:end]
    assert lrs == expected
    async with harness(tmp_path, None) as here:
        run = await here.stored.get("run")
        record = await record_of(here, run.key, STEPS)
        assert record.lrs.tolist() == expected
        dense = record.extras.dense(STEPS)
        assert dense is not None
        assert agree(dense, extras_of(0, STEPS)).all()


async def test_a_check_with_replay_feeds_extras_back(tmp_path: Path) -> None:
    """A check that replays finds nothing in a run with extras, merged and backed up, and sees a change."""
    async with harness(tmp_path, None) as here:
        handle = (await here.open("run", SENSING)).handle
        for start in range(0, STEPS, 4):
            await go(here, handle, start, start + 4)
            await here.live.journal.flush()
        run, catalog = await here.stored.get("run"), here.catalog
        assert await here.stored.in_store(lambda store: store.merge(run)) is None
    with closing(open_store(tmp_path / "mlrs.sqlite3")) as store:
        back_up(store, tmp_path / "backup", lambda _rows: None)
    with closing(open_store(tmp_path / "backup")) as copy:
        (checked,) = check_runs(copy, catalog)
        assert (checked.steps, checked.problem) == (STEPS, "")
        record = copy.read(run.key, 0, STEPS)
        record.extras.values[record.extras.positions == 34, 0] += 0.25
        with copy.transaction() as connection:
            connection.execute(observations.update().values(record=pack_chunk(record)))
        (checked,) = check_runs(copy, catalog)
        assert "its learning rate at step 34 is not what" in checked.problem


def test_a_replay_gives_each_step_its_extras_between_meta_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page with meta updates between its steps is fed in parts, each with its own extras."""
    monkeypatch.setattr(RunGroup, "adapt", lambda *_: None)
    extras = sparse_of(0, STEPS)
    made = [MetaUpdate(step, 1.0, None, 1, 0.1, 0.0) for step in (0, 4, 5, 17)]
    replay = Replay(Sensing(), SENSING)
    whole = replay.feed(LOSSES[:STEPS], made, extras)
    assert whole.tolist() == undisturbed().tolist()


@pytest.mark.parametrize("meta", [None, MetaConfig(every=1, learning_rate=0.01)], ids=["frozen", "meta mode"])
async def test_a_network_that_reads_signals_is_replayed_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meta: MetaConfig | None
) -> None:
    """The tail network gives the same advice after restarts and rewinds, frozen and in meta mode."""
    monkeypatch.setattr(updates, "CHECKPOINT_UPDATES", 4)
    model = tmp_path / "tail.safetensors"
    model.write_bytes(dump_model(random_model(TailSpec(hidden_size=4), snapshots=1)))
    config = RunConfig(horizon=STEPS, num_classes=10, optimizer=Optimizer.SGD, initial_lr=0.1, meta=meta)

    async def follow(here: Harness, start: int, end: int, *, has_extras: bool = True) -> list[float]:
        run, lrs = await learning(here, config=config), list[float]()
        for step in range(start, end):
            extras = extras_at(step) if has_extras else None
            asked = await here.ask(run.opened.handle, step, LOSSES[step], extras)
            assert not asked.errors, asked.errors
            lrs.append(float(asked.lrs[0]))
            if meta is not None and step % 3 == 2 and step < end - 1:
                await run.update(step)
        return lrs

    async with harness(tmp_path / "calm", model) as here:
        expected = await follow(here, 0, STEPS)
    async with harness(tmp_path / "without", model) as here:
        assert await follow(here, 0, STEPS, has_extras=False) != expected
    lrs = list[float]()
    for start, end in ((0, 10), (10, 31), (31, STEPS)):
        async with harness(tmp_path / "restarted", model) as here:
            lrs[start:] = await follow(here, start, end)
            back = end - 9
            await here.open("run", resume_from=back)
            lrs[back:] = await follow(here, back, end)
    assert lrs == expected
    async with harness(tmp_path / "restarted", model) as here:
        run = await here.stored.get("run")
        record = await record_of(here, run.key, STEPS)
        assert record.extras.positions.tolist() == sparse_of(0, STEPS).positions.tolist()


def sparse_of(start: int, end: int) -> SparseExtras:
    """Return the extras of steps, sparsely."""
    extras = extras_of(start, end)
    has = np.flatnonzero(is_sent(extras))
    return SparseExtras(has, extras[has])
