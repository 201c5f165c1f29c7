"""What new runs begin with because of the runs of their task before them."""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlrs_core.config import (
    MetaConfig,
    Optimizer,
    RanksConfig,
    Recalled,
    RunConfig,
    ScheduleKind,
    ScheduleSpec,
)
from mlrs_core.memory import Ending, Explore
from mlrs_core.policy import Floats
from mlrs_core.schedules.kernel import schedule_policy
from mlrs_server.domain.ledger import DIVERGED_AFTER, RunStatus
from mlrs_server.domain.tails import tail
from mlrs_server.errors import Reason
from mlrs_server.live.stored_runs import StoredRuns
from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.models.files import asking
from mlrs_server.ops.checking import check_runs, check_whole
from mlrs_server.runs.remembering import TaskMemory
from mlrs_server.storage import open_store
from tests.server.runs.memories import CONFIG, HORIZON, asked, begin, end, known, newest, observe, train
from tests.server.runs.searches import ask, found_by, searched
from tests.server.support import LOSSES, Harness, harness, raises, replayed

TOLD = {"metric": 0.5}
SEARCHED = replace(CONFIG, horizon=400)
"""Of runs whose learning rate a search finds: the trials are shorter than the run."""


def of(config: RunConfig) -> Recalled:
    """Return what the memory has decided for a run that takes part."""
    assert config.recalled is not None
    return config.recalled


def rate_of(config: RunConfig) -> float:
    """Return the base LR that the memory has decided on."""
    assert of(config).decided
    assert config.schedule is not None
    assert config.schedule.base_lr is not None
    return config.schedule.base_lr


async def first(here: Harness, run_id: str = "a", **told: Any) -> float:
    """Make the first run of the task, with a search; return the learning rate that it found."""
    await begin(here, run_id, SEARCHED)
    await searched(here, run_id=run_id)
    opened = await here.open(run_id)
    await observe(here, opened.handle, LOSSES[:400])
    await end(here, run_id, **(told or TOLD))
    assert opened.view.config.found is not None
    return opened.view.config.found.learning_rate


async def config_of(here: Harness, run_id: str) -> RunConfig:
    """Return a run's config."""
    return (await here.records.get(run_id)).config


# ----------------------------------------------------------------------------------- deciding


async def test_the_first_run_begins_as_one_without_memory(tmp_path: Path, model: Path | None) -> None:
    """The first run of a task has the learning rates that it would have without a memory, and says why."""
    async with harness(tmp_path / "d", model) as here:
        without = await begin(here, "without", explore=None)
        opened = await begin(here, "a")
        assert without.view.config.recalled is None
        assert of(opened.view.config) == Recalled(why="the first run of its task with this kind of optimizer")
        assert replace(opened.view.config, recalled=None) == without.view.config
        with_memory, alone = [await observe(here, one.handle, LOSSES[:HORIZON]) for one in (opened, without)]
        assert np.array_equal(with_memory, alone)


async def test_a_second_run_begins_with_the_best_known(tmp_path: Path, model: Path | None) -> None:
    """It follows a schedule at the learning rate that a search found, from its first step on."""
    async with harness(tmp_path / "d", model) as here:
        found = await first(here)
        opened = await begin(here, "b", SEARCHED, explore=Explore.NONE)
        config = opened.view.config
        assert rate_of(config) == pytest.approx(found)
        assert config.schedule == tail(ScheduleKind.WSD, 400, rate_of(config)).resolved()
        assert config.schedule is not None
        lrs = await observe(here, opened.handle, LOSSES[:400])
        wanted = replayed(
            schedule_policy(config.schedule),
            RunConfig(horizon=400, schedule=config.schedule),
            LOSSES[:400],
        )
        assert np.array_equal(lrs, wanted)
        assert (await known(here)).runs[0].recalled == config.recalled


async def test_a_model_that_ended_well_is_gone_on_with(tmp_path: Path, model_file: Path) -> None:
    """Where runs of the default model are all that is known, a run that may explore tries an offset on it."""
    async with harness(tmp_path / "d", model_file) as here:
        for index in range(3):
            await train(here, f"run-{index}", metric=0.5 + index / 100, explore=Explore.NONE)
        config = (await begin(here, "counts", explore=Explore.NONE)).view.config
        assert of(config).decided
        assert (config.schedule, config.lr_offset) == (None, None)
        config = (await begin(here, "tries", explore=Explore.FULL)).view.config
        assert config.lr_offset
        assert config.schedule is None
        assert 2.0**config.lr_offset == pytest.approx(await ratio(here, "tries", "counts"), rel=1e-3), (
            "the model's own rate, multiplied"
        )


async def ratio(here: Harness, one: str, other: str) -> float:
    """Return how much higher the first learning rate of a run is than another's."""
    lrs = [
        float((await observe(here, (await here.open(run_id)).handle, LOSSES[:1]))[0])
        for run_id in (one, other)
    ]
    return lrs[0] / lrs[1]


@pytest.mark.parametrize(
    ("config", "request_"),
    [
        (replace(CONFIG, horizon=None), {}),
        (CONFIG, {"model": "small"}),
        (CONFIG, {"explore": None}),
        (replace(CONFIG, schedule=ScheduleSpec(ScheduleKind.COSINE, base_lr=0.1)), {}),
        (replace(CONFIG, meta=MetaConfig()), {}),
        (replace(CONFIG, initial_lr=0.1), {}),
        (replace(CONFIG, lr_offset=0.0), {}),
        (replace(CONFIG, lr_offset=1.0), {}),
        (replace(CONFIG, scale=0.5), {}),
        (replace(CONFIG, snapshot=1), {}),
    ],
    ids=str,
)
async def test_a_run_that_leaves_no_choice_takes_no_part(
    tmp_path: Path, model_file: Path, config: RunConfig, request_: dict[str, Any]
) -> None:
    """A run without a horizon, or whose caller chose what it follows, is not decided for or remembered."""
    async with harness(tmp_path / "d", model_file) as here:
        await train(here, "a", metric=0.5)
        opened = await begin(here, "b", config, **request_)
        assert opened.view.config == config.resolved()
        assert [run.run_id for run in (await known(here)).runs] == ["a"]


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, ranks=RanksConfig()),
        replace(CONFIG, rescue=True),
        replace(CONFIG, min_lr=1e-4, max_lr=2.0, num_classes=10),
        replace(CONFIG, optimizer=Optimizer.UNSPECIFIED, batch_size=None),
        replace(CONFIG, horizon=1),
    ],
    ids=str,
)
async def test_a_run_that_leaves_a_choice_takes_part(
    tmp_path: Path, model_file: Path, config: RunConfig
) -> None:
    """Whatever else a run is given stays as it is, and the memory decides for it."""
    async with harness(tmp_path / "d", model_file) as here:
        assert not of(await train(here, "a", replace(config, ranks=None), metric=0.5)).decided
        opened = await begin(here, "b", config, explore=Explore.NONE)
        assert of(opened.view.config).decided
        assert replace(opened.view.config, recalled=None) == config.resolved()


async def test_decisions_stay_within_bounds(tmp_path: Path, model_file: Path) -> None:
    """A learning rate that the memory decides on is between the run's own least and greatest."""
    async with harness(tmp_path / "d", model_file) as here:
        found = await first(here)
        for run_id, low, high in (("above", 1.3 * found, None), ("below", None, 0.7 * found)):
            config = replace(SEARCHED, min_lr=low, max_lr=high)
            rate = rate_of((await begin(here, run_id, config, explore=Explore.NONE)).view.config)
            assert (low or 0.0) <= rate <= (high or math.inf)
            assert rate == pytest.approx(found, rel=0.5)


async def test_a_task_is_of_its_tenant_and_its_name(tmp_path: Path, model_file: Path) -> None:
    """Runs of another task, or of another tenant's task of that name, play no part in a decision."""
    async with harness(tmp_path / "d", model_file) as here:
        await train(here, "a", metric=0.5)
        for run_id, task in (("b", "other"), ("acme!c", "task"), ("d", "")):
            opened = await begin(here, run_id, task=task)
            assert of(opened.view.config).why == "the first run of its task with this kind of optimizer", (
                run_id
            )
        assert [one.name for one in await here.memory.tasks("", after="", limit=9)] == ["d", "other", "task"]
        assert [one.name for one in await here.memory.tasks("acme", after="", limit=9)] == ["task"]


async def test_runs_that_were_not_heard_of_for_long_are_stopped(tmp_path: Path, model_file: Path) -> None:
    """A run under way is one until it is abandoned; a diverged one and one at its horizon have ended."""
    config = replace(CONFIG, horizon=400)
    ends = {"going": 5, "diverged": 3, "at its horizon": 400}

    async def endings(here: Harness) -> dict[str, Ending]:
        await here.live.journal.flush()
        return {run.run_id.replace("-", " "): run.ending for run in (await known(here)).runs}

    async with harness(tmp_path / "d", model_file) as here:
        for run_id, count in ends.items():
            opened = await begin(here, run_id.replace(" ", "-"), config)
            losses = [*LOSSES[:count], *[math.nan] * (DIVERGED_AFTER if run_id == "diverged" else 0)]
            await observe(here, opened.handle, losses)
        assert await endings(here) == {
            "going": Ending.UNDER_WAY,
            "diverged": Ending.DIVERGED,
            "at its horizon": Ending.REACHED,
        }
        assert (await known(here)).runs[0].training_loss == pytest.approx(np.mean(LOSSES[380:400]))
    async with harness(tmp_path / "d", model_file, abandoned_after_s=1e-6) as here:
        assert await endings(here) == {
            "going": Ending.STOPPED,
            "diverged": Ending.DIVERGED,
            "at its horizon": Ending.REACHED,
        }


# -------------------------------------------------------------------------------- side by side


@pytest.mark.parametrize("explore", [Explore.CAREFUL, Explore.FULL])
@pytest.mark.parametrize("how", ["one batch", "together", "one by one"])
async def test_runs_side_by_side_get_different_arms(
    tmp_path: Path, model_file: Path, explore: Explore, how: str
) -> None:
    """Runs that are opened in one call, at the same time, or after each other try different things."""
    async with harness(tmp_path / "d", model_file) as here:
        await first(here)
        requests = [asked(f"run-{index}", SEARCHED, explore=explore) for index in range(4)]
        if how == "one batch":
            opened = await here.opener.open_many(requests)
        elif how == "together":
            opened = list(await asyncio.gather(*map(here.open_one, requests)))
        else:
            opened = [await here.open_one(request) for request in requests]
        arms = {str(one.view.config.schedule) for one in opened}
        assert len(arms) == len(opened)
        assert len((await known(here)).runs) == 5


async def test_a_batch_is_decided_in_order(tmp_path: Path, model_file: Path) -> None:
    """Runs that are opened in one call get what they would get if they were opened one after the other."""
    configs = list[list[RunConfig]]()
    for how in ("batch", "single"):
        async with harness(tmp_path / how, model_file) as here:
            await first(here)
            requests = [asked(f"run-{index}", SEARCHED) for index in range(3)]
            requests.insert(1, asked("other", SEARCHED, task="other"))
            if how == "batch":
                opened = await here.opener.open_many(requests)
            else:
                opened = [await here.open_one(request) for request in requests]
            configs.append([one.view.config for one in opened])
    assert configs[0] == configs[1]


# ------------------------------------------------------------------------------ opening again


async def test_a_restart_keeps_the_decision(tmp_path: Path, model_file: Path) -> None:
    """A run that is begun anew under its id has the arm that it had, whatever is known meanwhile."""
    async with harness(tmp_path / "d", model_file) as here:
        await first(here)
        before = (await begin(here, "b", SEARCHED)).view.config
        await train(here, "c", SEARCHED, explore=Explore.FULL, metric=0.1)
        again = await begin(here, "b", SEARCHED, mode="restart", explore=Explore.NONE)
        assert again.created
        assert again.view.config == before
        longer = (await begin(here, "b", replace(SEARCHED, horizon=500), mode="restart")).view.config
        assert longer.recalled != before.recalled, "another horizon is decided on anew"
        assert [run.run_id for run in (await known(here)).runs] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("config", "explore"),
    [(SEARCHED, None), (replace(SEARCHED, initial_lr=0.1), Explore.CAREFUL)],
    ids=["no memory", "a rate"],
)
async def test_a_restart_may_leave_the_memory(
    tmp_path: Path, model_file: Path, config: RunConfig, explore: Explore | None
) -> None:
    """A run that is begun anew without memory follows what it is given, and is remembered no more."""
    async with harness(tmp_path / "d", model_file) as here:
        await first(here)
        await begin(here, "b", SEARCHED)
        again = await begin(here, "b", config, explore=explore, mode="restart")
        assert again.view.config == config.resolved()
        assert [run.run_id for run in (await known(here)).runs] == ["a"]


async def test_a_restart_of_a_run_that_ended(tmp_path: Path, model_file: Path) -> None:
    """How the run ended that is replaced stays known, and the new one is another."""
    async with harness(tmp_path / "d", model_file) as here:
        await first(here)
        await train(here, "b", SEARCHED, metric=0.25)
        await begin(here, "b", SEARCHED, mode="restart")
        runs = (await known(here)).runs
        assert [(run.run_id, run.ending) for run in runs] == [
            ("b", Ending.UNDER_WAY),
            ("b", Ending.REACHED),
            ("a", Ending.REACHED),
        ]


async def test_a_restart_of_a_run_whose_search_found_a_rate(tmp_path: Path, model_file: Path) -> None:
    """A run that a search settled, as nothing was decided for it, is begun anew without what was found."""
    async with harness(tmp_path / "d", model_file) as here:
        before = (await begin(here, "a", SEARCHED)).view.config
        await searched(here)
        again = (await begin(here, "a", SEARCHED, mode="restart")).view.config
        assert again == before
        assert again.found is None


async def test_a_run_that_is_resumed_keeps_its_decision(tmp_path: Path, model_file: Path) -> None:
    """Opening a run again, in this process or the next, changes nothing of what was decided for it."""
    async with harness(tmp_path / "d", model_file) as here:
        await first(here)
        before = (await begin(here, "b", SEARCHED)).view.config
        assert (await begin(here, "b", SEARCHED, explore=Explore.FULL)).view.config == before
        await train(here, "c", SEARCHED, metric=0.1)
    async with harness(tmp_path / "d", model_file) as here:
        assert (await begin(here, "b", SEARCHED)).view.config == before
        assert (await here.open("b")).view.config == before


async def test_a_run_that_learns_its_optimizer_is_decided_then(tmp_path: Path, model_file: Path) -> None:
    """A run opened without its optimizer, as by ranks, is decided for once a later opening tells it."""
    async with harness(tmp_path / "d", model_file) as here:
        found = await first(here)
        bare = replace(SEARCHED, optimizer=Optimizer.UNSPECIFIED)
        opened = await begin(here, "b", bare)
        assert not of(opened.view.config).decided
        told = await begin(here, "b", SEARCHED, explore=Explore.NONE)
        assert rate_of(told.view.config) == pytest.approx(found)
        assert told.view.config.optimizer == Optimizer.ADAM
        assert (await begin(here, "b", SEARCHED)).view.config == told.view.config
        lrs = await observe(here, told.handle, LOSSES[:5])
        assert told.view.config.schedule is not None
        wanted = replayed(schedule_policy(told.view.config.schedule), told.view.config, LOSSES[:5])
        assert np.array_equal(lrs, wanted)
        assert [run.run_id for run in (await known(here)).runs] == ["b", "a"]
    async with harness(tmp_path / "d", model_file) as here:
        assert (await here.open("b")).view.config == told.view.config


async def test_a_run_that_learns_its_horizon_later_takes_no_part(tmp_path: Path, model_file: Path) -> None:
    """A run created without a horizon goes on without memory, also when a later opening gives one."""
    async with harness(tmp_path / "d", model_file) as here:
        await first(here)
        assert (await begin(here, "b", replace(SEARCHED, horizon=None))).view.config.recalled is None
        assert (await begin(here, "b", SEARCHED)).view.config == SEARCHED.resolved()
        assert [run.run_id for run in (await known(here)).runs] == ["a"]


# ------------------------------------------------------------------------------------ searches


async def test_a_search_after_an_undecided_run_settles_it(tmp_path: Path, model_file: Path) -> None:
    """Where the memory decides nothing, a search does as without it, and its rate is remembered."""
    configs = list[RunConfig]()
    for folder, explore in (("with", Explore.CAREFUL), ("without", None)):
        async with harness(tmp_path / folder, model_file) as here:
            await begin(here, "a", SEARCHED, explore=explore)
            found = found_by(await searched(here))
            configs.append(await config_of(here, "a"))
            if explore is not None:
                assert (await newest(here)).learning_rate == found.learning_rate
                assert (await newest(here)).searched
    assert replace(configs[0], recalled=None) == configs[1]
    assert not of(configs[0]).decided


async def test_a_search_drops_an_offset_that_was_decided(tmp_path: Path, model_file: Path) -> None:
    """A run that is searched for though the memory decided on an offset follows what was found instead."""
    async with harness(tmp_path / "d", model_file) as here:
        for index in range(3):
            await train(here, f"run-{index}", SEARCHED, losses=LOSSES[:400], metric=0.5, explore=Explore.NONE)
        assert (await begin(here, "a", SEARCHED, explore=Explore.FULL)).view.config.lr_offset
        found = found_by(await searched(here))
        config = await config_of(here, "a")
        assert config.lr_offset is None
        assert config.after_search().schedule == tail(ScheduleKind.WSD, 400, found.learning_rate).resolved()
        own = replace(SEARCHED, lr_offset=0.5)
        await begin(here, "own", own)
        await searched(here, run_id="own")
        assert (await config_of(here, "own")).lr_offset == 0.5, "the caller's own stays"


async def test_a_search_for_a_decided_run_begins_at_its_rate(tmp_path: Path, model_file: Path) -> None:
    """A search that a caller makes though the memory decided begins at what was decided."""
    async with harness(tmp_path / "d", model_file) as here:
        await first(here)
        decided = (await begin(here, "b", SEARCHED)).view.config
        view = await ask(here, run_id="b")
        assert view.search.setup.initial_lr == rate_of(decided)


# ----------------------------------------------------------------------------- independent runs


async def test_nothing_that_others_do_changes_a_run(tmp_path: Path, model: Path | None) -> None:
    """While runs of the task end, are deleted and forgotten, a run's learning rates are the same bits."""
    lrs, configs = list[Floats](), list[RunConfig]()
    for disturbed in (False, True):
        async with harness(tmp_path / str(disturbed), model) as here:
            await first(here)
            opened = await begin(here, "b", SEARCHED)
            parts = [await observe(here, opened.handle, LOSSES[:100])]
            if disturbed:
                await train(here, "c", SEARCHED, metric=0.1)
                await train(here, "d", SEARCHED, losses=[math.nan] * 20)
            parts.append(await observe(here, opened.handle, LOSSES[100:200], start=100))
            if disturbed:
                await here.ending.delete("c")
                await here.memory.forget("", "task")
                await begin(here, "e", SEARCHED)
            opened = await here.open("b")
            parts.append(await observe(here, opened.handle, LOSSES[200:400], start=200))
            lrs.append(np.concatenate(parts))
            configs.append(opened.view.config)
    assert lrs[0].tobytes() == lrs[1].tobytes()
    assert configs[0] == configs[1]


async def test_a_decided_run_is_replayed_to_the_bit(tmp_path: Path, model_file: Path) -> None:
    """Runs with a schedule or an offset that was decided have the same bits again from their records."""
    async with harness(tmp_path / "d", model_file) as here:
        await first(here)
        for index in range(3):
            await train(here, f"of-the-model-{index}", explore=Explore.NONE, task="model", metric=0.5)
        lrs = {}
        for run_id, request in (("b", {}), ("c", {"task": "model", "explore": Explore.FULL})):
            config = SEARCHED if run_id == "b" else CONFIG
            opened = await begin(here, run_id, config, **request)
            assert of(opened.view.config).decided
            lrs[run_id] = await observe(here, opened.handle, LOSSES[:30])
        assert (await config_of(here, "c")).lr_offset
        await here.live.journal.flush()
        await here.memory.forget("", "task")
    async with harness(tmp_path / "d", model_file) as here:
        for run_id, before in lrs.items():
            handle = (await here.open(run_id)).handle
            assert (await observe(here, handle, LOSSES[:30])).tobytes() == before.tobytes()
            rewound = (await here.open(run_id, resume_from=10)).handle
            again = await observe(here, rewound, LOSSES[10:30], start=10)
            assert again.tobytes() == before[10:].tobytes()
    with closing(open_store(tmp_path / "d" / "mlrs.sqlite3")) as store:
        assert check_whole(store) == []
        checked = list(check_runs(store, ModelCatalog(asking(store), default=str(model_file))))
        assert [one.problem for one in checked] == [""] * len(checked)
        assert len(checked) == 6


# -------------------------------------------------------------------------- reading, forgetting


async def test_what_is_remembered_of_a_task(tmp_path: Path, model_file: Path) -> None:
    """A task is read with its runs, the newest first, the fitted curve, and what its next run would get."""
    async with harness(tmp_path / "d", model_file) as here:
        await begin(here, "a")
        view = await known(here)
        assert (view.task.name, view.task.runs, view.fit, list(view.curve)) == ("task", 1, None, [])
        assert not view.next.recalled.decided
    async with harness(tmp_path / "e", model_file) as here:
        await first(here)
        await begin(here, "b", SEARCHED)
        view = await known(here)
        assert [run.run_id for run in view.runs] == ["b", "a"]
        assert view.fit is not None
        assert view.fit.expected(view.fit.best) in view.curve
        following = (await begin(here, "c", SEARCHED)).view.config
        assert view.next.recalled == following.recalled
        assert view.next.arm is not None
        assert view.next.arm.learning_rate == rate_of(following)


async def test_a_task_of_nothing(tmp_path: Path, model_file: Path) -> None:
    """A task of which nothing is remembered is refused by name, to be read as well as to be forgotten."""
    async with harness(tmp_path / "d", model_file) as here:
        await train(here, "a", explore=None)
        for call in (here.memory.task, here.memory.forget):
            with raises(Reason.NO_TASK, field="task", match="nothing is remembered of 'task'"):
                await call("", "task")


async def test_a_forgotten_task_begins_anew(tmp_path: Path, model_file: Path) -> None:
    """Its next run begins as the first one did, and a run that was under way meanwhile stays forgotten."""
    async with harness(tmp_path / "d", model_file) as here:
        await first(here)
        going = await begin(here, "b", SEARCHED)
        assert await here.memory.forget("", "task") == 2
        await observe(here, going.handle, LOSSES[:400])
        await end(here, "b", metric=0.1)
        opened = await begin(here, "c", SEARCHED)
        assert of(opened.view.config) == Recalled(why="the first run of its task with this kind of optimizer")
        assert [run.run_id for run in (await known(here)).runs] == ["c"]


async def test_how_a_run_ended_outlives_it(tmp_path: Path, model_file: Path) -> None:
    """A task knows how a run ended that was deleted since; one that is deleted under way is forgotten."""
    async with harness(tmp_path / "d", model_file) as here:
        found = await first(here)
        await begin(here, "b", SEARCHED)
        for run_id in ("a", "b"):
            await here.ending.delete(run_id)
        assert [run.run_id for run in (await known(here)).runs] == ["a"]
        config = (await begin(here, "c", SEARCHED, explore=Explore.NONE)).view.config
        assert rate_of(config) == pytest.approx(found)


@pytest.mark.parametrize("column", ["config", "snapshot"])
async def test_a_damaged_run_does_not_keep_others_from_beginning(
    tmp_path: Path, model_file: Path, column: str
) -> None:
    """A run whose row cannot be read is left out of its task; restarting it decides anew."""
    async with harness(tmp_path / "d", model_file) as here:
        await first(here)
        await begin(here, "b", SEARCHED)
    with closing(sqlite3.connect(tmp_path / "d" / "mlrs.sqlite3")) as file:
        file.execute(f"UPDATE runs SET {column} = x'00' WHERE run_id = 'b'")  # noqa: S608  # a column
        file.commit()
    async with harness(tmp_path / "d", model_file) as here:
        assert of((await begin(here, "c", SEARCHED)).view.config).decided
        assert [run.run_id for run in (await known(here)).runs] == ["c", "a"]
        again = await begin(here, "b", SEARCHED, mode="restart")
        assert of(again.view.config).decided


@pytest.mark.parametrize("method", ["past_runs", "create"])
async def test_an_opening_that_fails_may_be_made_again(tmp_path: Path, model_file: Path, method: str) -> None:
    """When the store fails while a run is decided for, there is no run; the next opening decides the same."""
    async with harness(tmp_path / "d", model_file) as here:
        await first(here)
        here.store.failing = {method}
        with raises(Reason.STORE):
            await begin(here, "b", SEARCHED)
        here.store.failing = set()
        wanted = (await known(here)).next.recalled
        opened = await begin(here, "b", SEARCHED)
        assert opened.created
        assert opened.view.config.recalled == wanted
        assert opened.view.snapshot.status == RunStatus.ACTIVE


# ------------------------------------------------------------------- runs that nobody finished


@pytest.mark.parametrize("way", ["deleted", "begun again", "silent"])
@pytest.mark.parametrize(("count", "ending"), [(HORIZON, Ending.REACHED), (5, Ending.STOPPED)])
async def test_a_run_at_its_horizon_is_remembered_though_nobody_finished_it(
    tmp_path: Path, model_file: Path, way: str, count: int, ending: Ending
) -> None:
    """When a run is deleted, begun again, or silent for long, it is stored how it ended if it did."""
    async with harness(tmp_path / "d", model_file, abandoned_after_s=1e-6) as here:
        await train(here, "a")
        opened = await begin(here, "b")
        await observe(here, opened.handle, LOSSES[:count])
        if way == "deleted":
            await here.ending.delete("b")
        elif way == "begun again":
            await begin(here, "b", mode="restart")
        else:
            await here.live.journal.flush()
            assert await here.memory.settle() == 1
            assert await here.memory.settle() == 0
        runs = [
            run for run in (await known(here)).runs if run.run_id == "b" and run.training_loss is not None
        ]
        if ending is Ending.REACHED:
            (run,) = runs
            assert run.ending == ending
            assert run.training_loss == pytest.approx(np.mean(LOSSES[HORIZON - 2 : HORIZON]))
        elif way == "silent":
            assert (await newest(here)).ending == ending


async def test_a_settled_run_may_go_on(tmp_path: Path, model_file: Path) -> None:
    """A run whose end was stored as it was silent can go on, and is remembered as it is finished."""
    async with harness(tmp_path / "d", model_file, abandoned_after_s=1e-6) as here:
        opened = await begin(here, "a")
        await observe(here, opened.handle, LOSSES[:5])
        await here.live.journal.flush()
        assert await here.memory.settle() == 1
        await observe(here, opened.handle, LOSSES[5:HORIZON], start=5)
        await end(here, "a", metric=0.5)
        (run,) = (await known(here)).runs
        assert (run.ending, run.metric) == (Ending.REACHED, 0.5)


async def test_a_run_that_is_finished_as_it_is_settled_keeps_its_metric(
    tmp_path: Path, model_file: Path
) -> None:
    """A run that is finished during a round for silent runs is remembered as it was finished."""
    async with harness(tmp_path / "d", model_file, abandoned_after_s=1e-6) as here:
        opened = await begin(here, "a")
        await observe(here, opened.handle, LOSSES[:HORIZON])
        await here.live.journal.flush()
        found = here.stored.in_store(lambda store: store.silent(before=math.inf, shards=None, limit=9))
        silent = await found
        await end(here, "a", metric=0.5)

        class Late:
            """The store, which found the runs before."""

            def __getattr__(self, name: str) -> Any:
                if name == "silent":
                    return lambda **_: silent
                return getattr(here.store, name)

        late = StoredRuns(Late(), here.stored._executor, here.catalog, here.live, None)
        await TaskMemory(late, here.catalog, abandoned_after_s=1e-6).settle()
        assert (await newest(here)).metric == 0.5


CHANGES: dict[str, Callable[[Harness], Any]] = {
    "a loss after its end": lambda here: train(here, "x", losses=[*LOSSES[:HORIZON], 1.0]),
    "no loss at all": lambda here: train(here, "x", losses=[]),
    "zeros": lambda here: train(here, "x", losses=np.zeros(HORIZON)),
    "negative": lambda here: train(here, "x", losses=-LOSSES[:HORIZON]),
    "huge": lambda here: train(here, "x", losses=np.full(HORIZON, 1.7e308)),
    "not a number": lambda here: train(here, "x", losses=[math.nan] * HORIZON),
    "a huge metric": lambda here: train(here, "x", metric=-1.7e308, higher_is_better=True),
}


@pytest.mark.parametrize("what", CHANGES)
async def test_whatever_a_run_ended_with_the_next_one_begins(
    tmp_path: Path, model_file: Path, what: str
) -> None:
    """After any losses and metrics, runs of the task can be opened, and their learning rates are usable."""
    async with harness(tmp_path / "d", model_file) as here:
        await train(here, "a")
        await CHANGES[what](here)
        rates = list[Sequence[float] | Floats]()
        for explore in Explore:
            opened = await begin(here, f"run-{explore}", explore=explore)
            rates.append(await observe(here, opened.handle, LOSSES[:HORIZON]))
            await end(here, f"run-{explore}")
        assert np.isfinite(np.array(rates)).all()
