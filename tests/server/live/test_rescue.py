"""Runs with rescue: what they are told is recorded, repeated and replayed, and their rates are halved."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlrs_core.config import MetaConfig, RanksConfig, RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.policy import COLUMNS, Floats, no_networks, table_of
from mlrs_core.rescue import RescuingPolicy
from mlrs_core.rescue.policy import Alarms
from mlrs_core.schedules.kernel import schedule_policy
from mlrs_server.domain.extras import RESTORED, Extras, none_sent
from mlrs_server.domain.ledger import RESTORE, AdviceReason
from mlrs_server.ops.checking import check_runs
from mlrs_server.storage import open_store
from tests.server.meta.support import alignment_of
from tests.server.support import LOSSES, Harness, harness

SPEC = ScheduleSpec(ScheduleKind.COSINE, base_lr=0.3)
CONFIG = RunConfig(horizon=200, schedule=SPEC, rescue=True)
STEPS = 200
BAD = (20, 24, 90)
"""The steps whose losses are not finite, like those of the steps before them; the training restores a saved
state after each."""
OBSERVED: Floats = np.random.default_rng(5).uniform(1.0, 2.0, STEPS)
for bad, loss in zip(BAD, (math.nan, math.inf, -math.inf), strict=True):
    OBSERVED[bad - 1 : bad + 1] = loss


def extras_at(step: int) -> Extras:
    """Return what comes with the observation of a step, (WIDTH,)."""
    extras = none_sent(1)[0]
    if step - 1 in BAD:
        extras[RESTORED] = 1.0
    return extras


def undisturbed() -> tuple[Floats, Alarms]:
    """Return the learning rates and the alarms of the run, by an own account."""
    policy, table = RescuingPolicy(schedule_policy(SPEC)), table_of([CONFIG])
    signals = np.array([extras_at(step)[: len(COLUMNS)] for step in range(STEPS)])
    lrs, alarms = np.full(STEPS, np.nan), np.zeros(STEPS, np.uint8)
    states, networks, rows = policy.init_state(1), no_networks(policy, 1), np.zeros(STEPS, np.int64)
    policy.advance(states, networks, table, rows, np.arange(STEPS), OBSERVED, signals, lrs, alarms)
    for step in np.flatnonzero(~np.isfinite(OBSERVED)):
        lrs[step] = lrs[step - 1]
    return lrs, alarms


EXPECTED, ALARMS = undisturbed()
REASONS = np.where(np.isfinite(OBSERVED), AdviceReason.FRESH, AdviceReason.HELD) | ALARMS * RESTORE
"""The reasons of fresh answers, with the flag."""


async def check(here: Harness, handle: int, start: int, end: int, *, at_once: int = 1) -> None:
    """Send new steps, some in each message, and check what they are told."""
    for first in range(start, end, at_once):
        steps = np.arange(first, min(first + at_once, end))
        extras = np.array([extras_at(step) for step in steps])
        asked = await here.ask([handle] * len(steps), steps, OBSERVED[steps], extras)
        assert not asked.errors, asked.errors
        assert asked.lrs.tolist() == EXPECTED[steps].tolist()
        assert asked.reasons.tolist() == REASONS[steps].tolist()


async def check_replays(here: Harness, handle: int, end: int) -> None:
    """Send old steps again, and check that they are told the same."""
    for step in range(end):
        asked = await here.ask(handle, step, OBSERVED[step], extras_at(step))
        assert not asked.errors, asked.errors
        assert asked.lrs.tolist() == [EXPECTED[step]]
        assert asked.reasons.tolist() == [AdviceReason.REPLAYED | RESTORE * ALARMS[step]]


def test_the_run_is_told_thrice() -> None:
    """The account that other tests go by has three alarms, each at a second loss that is not finite."""
    assert np.flatnonzero(ALARMS).tolist() == list(BAD)


@pytest.mark.parametrize("at_once", [1, 7, STEPS])
async def test_a_run_is_told_to_restore(tmp_path: Path, at_once: int) -> None:
    """Answers carry the flag and halved learning rates, in messages of any size; sent again, the same."""
    async with harness(tmp_path, None) as here:
        handle = (await here.open("run", CONFIG)).handle
        await check(here, handle, 0, STEPS, at_once=at_once)
        await check_replays(here, handle, STEPS)
        await here.live.journal.flush()
        await check_replays(here, handle, STEPS)


async def test_the_newest_step_is_repeated_with_its_flag(tmp_path: Path) -> None:
    """Right after it was answered, and from memory, a step that asks to restore says so again."""
    async with harness(tmp_path, None) as here:
        handle = (await here.open("run", CONFIG)).handle
        await check(here, handle, 0, BAD[0] + 1)
        await check_replays(here, handle, BAD[0] + 1)


async def test_a_run_goes_on_bit_for_bit_after_restarts_and_rewinds(tmp_path: Path) -> None:
    """However often it is stored, loaded and rewound, also across alarms, a run is told the same."""
    for start, end in ((0, 10), (10, 21), (21, 22), (22, 91), (91, STEPS)):
        async with harness(tmp_path, None) as here:
            handle = (await here.open("run", CONFIG)).handle
            await check(here, handle, start, end)
            await check_replays(here, handle, end)
            back = max(end - 9, 0)
            handle = (await here.open("run", CONFIG, resume_from=back)).handle
            await check(here, handle, back, end, at_once=4)
    async with harness(tmp_path, None) as here:
        record = await here.history("run")
        assert record.lrs.tobytes() == EXPECTED.tobytes()
        assert record.reasons.tolist() == REASONS.tolist()
        catalog = here.catalog
    with closing(open_store(tmp_path / "mlrs.sqlite3")) as store:
        (checked,) = check_runs(store, catalog)
        assert (checked.steps, checked.problem) == (STEPS, "")


async def test_other_runs_are_told_nothing(tmp_path: Path, model_file: Path) -> None:
    """In a message of runs with and without rescue, each gets what it would get alone."""
    plain = replace(CONFIG, rescue=False)
    async with harness(tmp_path, model_file) as here:
        handles = [(await here.open(name, config)).handle for name, config in (("a", plain), ("b", CONFIG))]
        handles.append((await here.open("net", RunConfig(horizon=200, rescue=True))).handle)
        for step in range(30):
            extras = np.stack([none_sent(1)[0], extras_at(step), extras_at(step)])
            asked = await here.ask(handles, [step] * 3, [OBSERVED[step]] * 3, extras)
            assert not asked.errors, asked.errors
            assert asked.reasons.tolist() == [REASONS[step] & ~RESTORE, REASONS[step], REASONS[step]]
            assert asked.lrs[1] == EXPECTED[step]
            if step > BAD[1]:
                assert asked.lrs[1] == asked.lrs[0] / 4


async def test_a_run_may_ask_for_rescue_until_it_begins(tmp_path: Path, model_file: Path) -> None:
    """Opened again before its first step, a run gets rescue; afterwards it goes on without, and says so."""
    plain = replace(CONFIG, rescue=False)
    async with harness(tmp_path, model_file) as here:
        await here.open("run", plain)
        handle = (await here.open("run", CONFIG)).handle
        await here.open("begun", plain)
        begun = (await here.open("begun", plain)).handle
        await here.ask(begun, 0, 1.0)
        opened = await here.open("begun", CONFIG)
        assert not opened.view.config.rescue
        for step in (1, 2):
            assert not (await here.ask(begun, step, math.nan)).reasons[0] & RESTORE
        await check(here, handle, 0, 30)
        await here.open("stored", plain)
        await here.open("net", RunConfig(horizon=200))
    async with harness(tmp_path, model_file) as here:
        for name, config in (("stored", CONFIG), ("net", RunConfig(rescue=True))):
            opened = await here.open(name, config)
            assert opened.view.config.rescue
            await here.ask(opened.handle, 0, math.nan)
            assert (await here.ask(opened.handle, 1, math.nan)).reasons[0] & RESTORE
        opened = await here.open("run")
        assert opened.view.config.rescue
        await check(here, opened.handle, 30, 60)


async def test_every_rank_is_told(tmp_path: Path) -> None:
    """Where all ranks report, each gets the flag; that one of them restored is enough."""
    config = replace(CONFIG, ranks=RanksConfig())
    async with harness(tmp_path, None) as here:
        handle = (await here.open("run", config, world_size=2)).handle
        for step in range(30):
            loss = OBSERVED[step]
            extras = np.stack([none_sent(1)[0], extras_at(step)])
            answer = await here.report(handle, [(step, 0, loss), (step, 1, loss)], extras=extras)
            assert answer.entries.reasons.tolist() == [REASONS[step]] * 2
            assert answer.entries.lrs.tolist() == [EXPECTED[step]] * 2


async def test_updates_of_meta_mode_know_of_halved_rates(tmp_path: Path, model_file: Path) -> None:
    """After an alarm, the learning rate that an update gives is near the halved one, within its bounds."""
    meta = MetaConfig(every=1, learning_rate=0.01, max_change=0.1)
    config = RunConfig(horizon=400, num_classes=10, rescue=True, meta=meta)
    async with harness(tmp_path, model_file) as here:
        await here.open("run", config)
        live, moved = here.live.find("run"), 0
        assert live is not None
        for step in range(30):
            loss = LOSSES[step] if math.isfinite(OBSERVED[step]) else math.nan
            asked = await here.ask(live.handle, step, loss, extras_at(step))
            update = live.group.adapt(live.row, alignment_of(step))
            assert abs(math.log(update.lr / float(asked.lrs[0]))) < 0.2
            moved += step > BAD[1] and update.lr != float(asked.lrs[0])
        assert moved


async def test_meta_mode_goes_on_bit_for_bit(tmp_path: Path, model_file: Path) -> None:
    """A run in meta mode with rescue gets the same learning rates after restarts and rewinds."""
    config = RunConfig(horizon=400, num_classes=10, rescue=True, meta=MetaConfig(every=1, learning_rate=0.01))

    async def follow(here: Harness, start: int, end: int) -> list[float]:
        live, lrs = here.live.find("run"), list[float]()
        assert live is not None
        for step in range(start, end):
            loss = LOSSES[step] if math.isfinite(OBSERVED[step]) else math.nan
            asked = await here.ask(live.handle, step, loss, extras_at(step))
            assert not asked.errors, asked.errors
            assert bool(asked.reasons[0] & RESTORE) == (step in BAD)
            if step % 3 == 2:
                live.group.adapt(live.row, alignment_of(step))
            lrs.append(float(live.record["last_lr"]))
        return lrs

    async with harness(tmp_path / "calm", model_file) as here:
        await here.open("run", config)
        expected = await follow(here, 0, 100)
    lrs = list[float]()
    for start, end in ((0, 25), (25, 61), (61, 100)):
        async with harness(tmp_path / "restarted", model_file) as here:
            await here.open("run", config)
            lrs[start:] = await follow(here, start, end)
            back = end - 7
            await here.open("run", resume_from=back)
            lrs[back:] = await follow(here, back, end)
    assert lrs == expected
    assert len(set(lrs)) > 50
