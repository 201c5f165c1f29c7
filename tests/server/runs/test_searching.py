"""Searches for the learning rate to begin with, without a wire."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mlrs_core.config import (
    FoundRate,
    MetaConfig,
    Optimizer,
    RanksConfig,
    RunConfig,
    ScheduleKind,
    ScheduleSpec,
)
from mlrs_core.policy import Floats
from mlrs_core.schedules.kernel import schedule_policy
from mlrs_core.search import Found, Trial, TrialResult, what_next
from mlrs_server import failpoints
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.domain.searches import VERSION, RecordedSearch
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.live import run_groups
from mlrs_server.rpc.convert import search_to_proto
from mlrs_server.runs.open_request import OpenRequest
from mlrs_server.runs.searching import SearchView
from mlrs_server.storage import StoredRun
from mlrs_server.storage.searches import unpack
from mlrs_server.storage.tables import searches
from mlrs_server.tenancy import full_name
from tests.server.runs.searches import ask, begun, due, found_by, loss_of, searched, tried, tried_but_one
from tests.server.support import LOSSES, Harness, harness, raises, replayed, until
from tests.support.daemon import write_tail_model

HORIZON = 400
CONFIG = RunConfig(horizon=HORIZON, optimizer=Optimizer.SGD)
WSD = ScheduleSpec(ScheduleKind.WSD, warmup=20, final_lr=0.0, cooldown_fraction=0.2)
"""What a run of this horizon follows after a search if it was given nothing to follow."""
COSINE = ScheduleSpec(ScheduleKind.COSINE, base_lr=0.3, warmup=5)


def rows(here: Harness) -> list[tuple[int, RecordedSearch]]:
    """Return all searches in the store, with their numbers."""
    query = sa.select(searches.c.attempt, searches.c.record).order_by(searches.c.attempt)
    with here.store._store.reading() as connection:  # type: ignore[attr-defined]
        return [(row.attempt, unpack(row.record, "a")) for row in connection.execute(query)]


async def in_store(here: Harness, work: Callable[[Any], Any]) -> Any:
    """Return what a function of the store returns, on the store's thread."""
    return await here.stored.in_store(work)


def facts(view: SearchView) -> bytes:
    """Return a search as callers see it, to the bit."""
    return search_to_proto(view).SerializeToString(deterministic=True)


async def config_of(here: Harness, run_id: str = "a") -> RunConfig:
    """Return the config of a run."""
    return (await here.records.get(run_id)).config


async def lrs_of(here: Harness, config: RunConfig | None = None, count: int = 60) -> Floats:
    """Open the run `a`, and return its first learning rates."""
    opened = await here.open("a", config)
    return await here.follow(opened.handle, LOSSES[:count])


def rate_of(config: RunConfig) -> float:
    """Return the learning rate that a run begins with."""
    assert config.found is not None
    return config.found.learning_rate


# --------------------------------------------------------------------------------- the record


async def test_results_in_order_lead_to_a_decision(tmp_path: Path, model_file: Path) -> None:
    """Each result is answered by the next trial of the rules, and the last one by what they find."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        view, results = await ask(here), list[TrialResult]()
        assert (view.attempt, view.search.start, view.search.results) == (1, "s", ())
        while isinstance(view.next, Trial):
            assert view.next == what_next(view.search.setup, results)
            trial = view.next
            results.append(
                TrialResult(learning_rate=trial.learning_rate, steps=trial.steps, loss=loss_of(trial))
            )
            view = await tried(here, view)
            assert view.search.results == tuple(results)
            assert facts(await here.searches.get("a")) == facts(view)
        assert view.next == what_next(view.search.setup, results)
        assert view.attempt == 1
        assert rows(here) == [(1, view.search)]


@pytest.mark.parametrize("initial_lr", [None, 0.5])
async def test_a_search_begins_where_the_run_would(
    tmp_path: Path, model_file: Path, initial_lr: float | None
) -> None:
    """The first trial is at the base LR of the run's schedule, else at its initial one, if one was given."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", replace(CONFIG, initial_lr=initial_lr))
        await here.open("scheduled", replace(CONFIG, schedule=COSINE))
        assert due(await begun(here, run_id="scheduled")).learning_rate == 0.3
        view = await begun(here)
        assert view.search.setup.initial_lr == initial_lr
        assert initial_lr in (None, due(view).learning_rate)
        assert due(view).steps == 8


NANS = struct.unpack("<2d", struct.pack("<2Q", 0xFFF8000000000002, 0x7FF8000000000001))
"""NaNs of other bits than Python's own."""


@pytest.mark.parametrize(
    "losses",
    [[9.0, 3.0, 2.0, 2.5], [math.nan, *NANS, *[math.nan] * 9], [math.inf, -math.inf, *[math.inf] * 10]],
    ids=["finite", "nan", "infinite"],
)
async def test_a_repeated_result_changes_nothing(
    tmp_path: Path, model_file: Path, losses: Sequence[float]
) -> None:
    """A result that comes again gets the same answer bit for bit, NaN or not, and nothing is stored again."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        view, results = await ask(here), list[tuple[int, float, int]]()
        for number, loss in enumerate(losses):
            result = (number, loss, max(due(view).steps - number % 2, 0))
            results.append(result)
            view = await ask(here, result)
            before, here.store.calls[:] = rows(here), []
            assert facts(await ask(here, result)) == facts(view)
            assert facts(await ask(here)) == facts(await here.searches.get("a")) == facts(view)
            assert "put_search" not in here.store.calls
            assert facts(SearchView(1, before[0][1], before[0][1].next())) == facts(view)
        found_by(view)
        for result in results:
            assert facts(await ask(here, result)) == facts(view)


@pytest.mark.parametrize(
    ("loss", "other"), [(3.0, 3.0000000000000004), (math.nan, 3.0), (3.0, math.nan), (math.inf, math.nan)]
)
async def test_another_result_of_a_trial_is_refused(
    tmp_path: Path, model_file: Path, loss: float, other: float
) -> None:
    """A recorded trial takes no other loss and no other steps, neither in the search nor at its end."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        await begun(here)
        await ask(here, (1, loss, 8))
        for again in ((1, other, 8), (1, loss, 7)):
            with raises(Reason.STALE_STEP, field="result", match="trial 1 is recorded with a loss of"):
                await ask(here, again)
        view = await searched(here)
        with raises(Reason.STALE_STEP, field="result", match="with a start of its own"):
            await ask(here, (1, other, 8))
        assert facts(await here.searches.get("a")) == facts(view)


@pytest.mark.parametrize(
    ("result", "field", "says"),
    [
        ((2, 1.0, 8), "result.number", "is 2, and 1 is due"),
        ((2**32 - 1, 1.0, 8), "result.number", "and 1 is due"),
        ((-1, 1.0, 8), "result.number", "is -1, and 1 is due"),
        ((1, 1.0, 9), "result.steps", "must be 0 to 8, as asked for, is 9"),
        ((1, 1.0, 2**64 - 1), "result.steps", "must be 0 to 8"),
        ((1, 1.0, -1), "result.steps", "is -1"),
    ],
)
async def test_a_result_that_was_not_asked_for_is_refused(
    tmp_path: Path, model_file: Path, result: tuple[int, float, int], field: str, says: str
) -> None:
    """A result ahead, or of steps that were not asked for, is refused by its field and changes nothing."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        await ask(here)
        with raises(Reason.INVALID_FIELD, field="result.steps", match="must be 0 to 0"):
            await ask(here, (0, 1.0, 1))
        view = await begun(here)
        with raises(Reason.INVALID_FIELD, field=field, match=says):
            await ask(here, result)
        assert facts(await ask(here)) == facts(view)


async def test_a_result_after_the_end_is_refused(tmp_path: Path, model_file: Path) -> None:
    """Once the search is at its end, no further result is taken."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        view = await searched(here)
        with raises(Reason.INVALID_FIELD, field="result.number", match="no trial is due"):
            await ask(here, (len(view.search.results), 1.0, 8))
        assert facts(await ask(here)) == facts(view)


async def test_a_result_needs_its_search(tmp_path: Path, model_file: Path) -> None:
    """A result of a start that no trial was asked for is refused, and begins no search."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        with raises(Reason.INVALID_FIELD, field="result", match="is of another search"):
            await ask(here, (0, 1.0, 8))
        with raises(Reason.NO_SEARCH, field="run_id", match="run 'a' had no search"):
            await here.searches.get("a")
        view = await ask(here)
        with raises(Reason.INVALID_FIELD, field="result", match="is of another search"):
            await ask(here, (0, 1.0, 8), start="other")
        assert facts(await here.searches.get("a")) == facts(view)


async def test_another_start_begins_anew(tmp_path: Path, model_file: Path) -> None:
    """Trials from another start are another attempt, which alone counts; the trials before stay recorded."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        one = await tried(here, await ask(here))
        other = await ask(here, start="t")
        assert (other.attempt, other.search.start, other.search.results) == (2, "t", ())
        assert other.next == what_next(other.search.setup, [])
        third = await tried(here, await ask(here))  # the first start again, which is not the last one's
        assert (third.attempt, len(third.search.results)) == (3, 1)
        assert rows(here) == [(1, one.search), (2, other.search), (3, third.search)]
        ended = await searched(here)
        assert ended.attempt == 3
        assert rows(here)[:2] == [(1, one.search), (2, other.search)]
        assert rate_of(await config_of(here)) == found_by(ended).learning_rate


async def test_a_search_continues_after_a_restart(tmp_path: Path, model_file: Path) -> None:
    """Asked with the same start, the daemon of any later process goes on behind the trials it knows."""
    async with harness(tmp_path / "whole", model_file) as here:
        await here.open("a", CONFIG)
        whole = await searched(here)
        config = await config_of(here)
    made = 0
    while True:
        async with harness(tmp_path / "d", model_file) as here:
            await here.open("a", CONFIG)
            view = await ask(here)
            assert (view.attempt, len(view.search.results)) == (1, made)
            if not isinstance(view.next, Trial):
                break
            await tried(here, view)
            made += 1
    assert facts(view) == facts(whole)
    async with harness(tmp_path / "d", model_file) as here:
        assert await config_of(here) == config


async def test_a_search_by_other_rules_begins_anew(tmp_path: Path, model_file: Path) -> None:
    """A search whose trials another version of the rules asked for is not gone on with."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        view = await tried(here, await ask(here))
        run = (await in_store(here, lambda store: store.get(["a"])))["a"]
        old = replace(view.search, version=VERSION - 1)
        await in_store(here, lambda store: store.put_search(run, 1, old))
        assert (await here.searches.get("a")).search == old
        again = await ask(here)
        assert (again.attempt, again.search.results, again.search.version) == (2, (), VERSION)


@pytest.mark.parametrize("start", ["", "a" * 65, "a b", "a\n", "é", "a_b", "a/b"])
async def test_a_malformed_start_is_refused(tmp_path: Path, model_file: Path, start: str) -> None:
    """The name of a start has 1 to 64 letters, digits and hyphens."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        with raises(Reason.INVALID_FIELD, field="start", match="1 to 64 letters"):
            await ask(here, start=start)
        await ask(here, start="a" * 63 + "-")


# ------------------------------------------------------------------------- runs without a search


async def test_a_run_that_has_begun_is_not_searched_for(tmp_path: Path, model_file: Path) -> None:
    """A run with observations, stored or not, refuses a search; it may go on with one once it is rewound."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a", CONFIG)
        view = await tried(here, await ask(here))
        await here.follow(opened.handle, LOSSES[:1])
        for flush in (False, True):
            if flush:
                await here.live.journal.flush()
            for start in ("s", "t"):
                with raises(Reason.RUN_BEGUN, field="run_id", match="run 'a' is at step 1"):
                    await ask(here, start=start)
        assert facts(await here.searches.get("a")) == facts(view)
        await here.open("a", resume_from=0)
        assert facts(await ask(here)) == facts(view)


async def test_a_run_may_begin_while_its_search_is_read(tmp_path: Path, model_file: Path) -> None:
    """An observation that comes while the store is asked counts: the search is refused, the step is kept."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a", CONFIG)
        view = await tried_but_one(here)
        here.store.passing = {"get"}
        here.store.calls.clear()
        here.store.unblocked.clear()
        reporting = asyncio.create_task(tried(here, view))
        await until(lambda: "search" in here.store.calls)
        lrs = await here.follow(opened.handle, LOSSES[:3])
        here.store.unblocked.set()
        with raises(Reason.RUN_BEGUN, match="is at step 3"):
            await reporting
        lrs_after = await here.follow(opened.handle, LOSSES[3:9], start=3)
        alone = replayed(here.catalog.find("").policy, CONFIG, LOSSES[:9])
        assert [*lrs, *lrs_after] == alone.tolist()
        assert (await here.history("a")).lrs.tobytes() == alone.tobytes()
        assert facts(await here.searches.get("a")) == facts(view)


async def test_a_finished_run_is_not_searched_for(tmp_path: Path, model_file: Path) -> None:
    """A run that was finished before its first step refuses a search, and keeps the one that it had."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        view = await ask(here)
        await here.finish("a")
        with raises(Reason.RUN_FINISHED, field="run_id"):
            await ask(here)
        assert facts(await here.searches.get("a")) == facts(view)
    async with harness(tmp_path / "d", model_file) as here:
        with raises(Reason.RUN_FINISHED, field="run_id"):
            await ask(here)


@pytest.mark.parametrize(
    ("run_id", "reason"), [("nobody", Reason.RUN_NOT_FOUND), ("a b", Reason.INVALID_FIELD)]
)
async def test_a_run_that_does_not_exist_has_no_search(
    tmp_path: Path, model_file: Path, run_id: str, reason: Reason
) -> None:
    """An id that no run has, or can have, is refused by both calls."""
    async with harness(tmp_path / "d", model_file) as here:
        with raises(reason, field="run_id"):
            await ask(here, run_id=run_id)
        with raises(reason, field="run_id"):
            await here.searches.get(run_id)


async def test_tenants_search_apart(tmp_path: Path, model_file: Path) -> None:
    """Runs of one id of two tenants have searches of their own; another tenant's is as if it were none."""
    async with harness(tmp_path / "d", model_file) as here:
        theirs = full_name("acme", "a")
        await here.open(theirs, CONFIG)
        await searched(here, run_id=theirs)
        with raises(Reason.RUN_NOT_FOUND):
            await here.searches.get("a")
        await here.open("a", CONFIG)
        with raises(Reason.NO_SEARCH):
            await here.searches.get("a")
        view = await ask(here)
        assert (view.attempt, view.search.results) == (1, ())
        assert (await config_of(here)).found is None


# ----------------------------------------------------------------------------- after the decision


async def test_a_run_without_a_policy_follows_wsd(tmp_path: Path, model: Path | None) -> None:
    """A run that was given nothing to follow has the learning rates of `wsd` at the rate that was found."""
    async with harness(tmp_path / "d", model) as here:
        stale = (await here.open("a", CONFIG)).handle
        found = found_by(await searched(here))
        config = await config_of(here)
        assert config == replace(
            CONFIG,
            schedule=WSD,
            found=FoundRate(learning_rate=found.learning_rate, octaves=found.octaves, steps=found.steps),
        )
        assert (await here.records.get("a")).model_ref == ""
        assert [len(group.run_ids) - len(group._free) for group in here.live.groups] == [0, 1]
        answer = await here.ask(stale, 0, 1.0)
        assert answer.errors[0].reason == Reason.STALE_HANDLE
        lrs = await lrs_of(here, CONFIG, HORIZON)
    expected = replace(CONFIG, schedule=replace(WSD, base_lr=found.learning_rate))
    assert lrs.tobytes() == replayed(schedule_policy(WSD), expected, LOSSES[:HORIZON]).tobytes()
    assert max(lrs) == found.learning_rate
    async with harness(tmp_path / "d", model) as here:
        assert await config_of(here) == config
        assert (await here.history("a")).lrs.tobytes() == lrs.tobytes()


async def test_a_run_may_keep_its_model(tmp_path: Path, model: Path | None) -> None:
    """With `keep_policy`, a run has its model's learning rates from what was found on."""
    async with harness(tmp_path / "d", model) as here:
        ref = (await here.open("a", CONFIG)).view.model_ref
        found = found_by(await searched(here, keep_policy=True))
        assert (await here.records.get("a")).model_ref == ref
        lrs = await lrs_of(here, CONFIG)
        expected = replace(CONFIG, initial_lr=found.learning_rate)
        alone = replayed(here.catalog.find("").policy, expected, LOSSES[:60])
    assert lrs.tobytes() == alone.tobytes()


async def test_a_model_that_begins_at_what_was_found_stays(tmp_path: Path) -> None:
    """A run of a tail network keeps it after a search, unasked: it corrects a schedule from there."""
    async with harness(tmp_path / "d", write_tail_model(tmp_path / "tail.safetensors")) as here:
        ref = (await here.open("a", CONFIG)).view.model_ref
        found = found_by(await searched(here))
        assert (await here.records.get("a")).model_ref == ref
        lrs = await lrs_of(here, CONFIG)
        expected = await config_of(here)
        assert (expected.found, expected.schedule) == (
            FoundRate(learning_rate=found.learning_rate, octaves=found.octaves, steps=found.steps),
            None,
        )
        alone = replayed(here.catalog.find("").policy, expected, LOSSES[:60])
    assert lrs.tobytes() == alone.tobytes()


@pytest.mark.parametrize("keep_policy", [False, True])
async def test_a_run_keeps_its_schedule(tmp_path: Path, model_file: Path, *, keep_policy: bool) -> None:
    """A run that was given a schedule follows it from what was found on, asked for or not."""
    asked = replace(CONFIG, schedule=COSINE)
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", asked)
        found = found_by(await searched(here, keep_policy=keep_policy))
        lrs = await lrs_of(here, asked)
        assert (await config_of(here)).schedule == COSINE.resolved()
    expected = replace(CONFIG, schedule=replace(COSINE, base_lr=found.learning_rate))
    assert lrs.tobytes() == replayed(schedule_policy(COSINE), expected, LOSSES[:60]).tobytes()


@pytest.mark.parametrize(
    "config", [RunConfig(num_classes=10), replace(CONFIG, meta=MetaConfig(every=2))], ids=["endless", "meta"]
)
async def test_a_run_that_no_schedule_can_take_over_keeps_its_model(
    tmp_path: Path, model: Path | None, config: RunConfig
) -> None:
    """Without a horizon and in meta mode, a run keeps its model and begins with what was found."""
    async with harness(tmp_path / "d", model) as here:
        ref = (await here.open("a", config)).view.model_ref
        stored = await config_of(here)
        found = found_by(await searched(here))
        after = await here.records.get("a")
        assert (after.model_ref, after.config.schedule) == (ref, None)
        assert replace(after.config, found=None) == stored
        assert rate_of(after.config) == found.learning_rate
        lrs = await lrs_of(here, config, 20)
        await here.open("other", replace(config, initial_lr=found.learning_rate))
        other = await here.follow((await here.open("other")).handle, LOSSES[:20])
    assert lrs.tobytes() == other.tobytes()


async def test_charged_steps_end_the_run_earlier(tmp_path: Path, model_file: Path) -> None:
    """With `charge_steps` the schedule, and its warmup, are of the steps that the trials have left."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        found = found_by(await searched(here, charge_steps=True))
        config = await config_of(here)
        assert config.horizon == HORIZON
        assert config.found == FoundRate(
            learning_rate=found.learning_rate, octaves=found.octaves, steps=found.steps, charged=True
        )
        left = HORIZON - found.steps
        assert config.schedule == replace(WSD, warmup=math.ceil(0.05 * left))
        lrs = await lrs_of(here, CONFIG, HORIZON)
    expected = RunConfig(horizon=left, schedule=replace(config.schedule, base_lr=found.learning_rate))
    assert lrs.tobytes() == replayed(schedule_policy(WSD), expected, LOSSES[:HORIZON]).tobytes()
    assert lrs[left - 1] > 0.0
    assert not lrs[left:].any()


async def test_a_decided_run_is_opened_as_before(tmp_path: Path, model_file: Path) -> None:
    """The call that made a run opens it after the search, too; one that asks for another policy does not."""
    asked = replace(CONFIG, num_classes=10)
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", asked)
        await searched(here)
        config = await config_of(here)
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a", asked)
        assert (opened.created, opened.view.config) == (False, config)
        assert (await here.open("a", RunConfig(max_lr=9.0))).view.config == replace(config, max_lr=9.0)
        for other in ({"model": "paper"}, {"config": RunConfig(horizon=7)}):
            with raises(Reason.CONFIG_MISMATCH):
                await here.open("a", **other)  # type: ignore[arg-type]
        assert await config_of(here) == replace(config, max_lr=9.0)


async def test_a_decided_run_may_be_searched_for_again(tmp_path: Path, model_file: Path) -> None:
    """Before its first step, and rewound there, another start decides anew; the same one changes nothing."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        view = await searched(here)
        await lrs_of(here)
        await here.open("a", resume_from=0)
        assert facts(await ask(here)) == facts(view)
        ended = await ask(here, start="t")
        for number in range(20):
            if not isinstance(ended.next, Trial):
                break
            ended = await ask(here, (number, float(number), ended.next.steps), start="t")
        assert ended.attempt == 2
        found = found_by(ended)
        assert found.learning_rate != found_by(view).learning_rate
        config = await config_of(here)
        assert (rate_of(config), config.schedule) == (found.learning_rate, WSD)
        lrs = await lrs_of(here)
    expected = replace(CONFIG, schedule=replace(WSD, base_lr=found.learning_rate))
    assert lrs.tobytes() == replayed(schedule_policy(WSD), expected, LOSSES[:60]).tobytes()


async def test_a_run_that_is_not_in_memory_is_decided_in_the_store(tmp_path: Path, model_file: Path) -> None:
    """The last result after a restart needs no run and no model in memory; opening the run loads both."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        await tried_but_one(here, keep_policy=True)
    async with harness(tmp_path / "d", None) as here:
        found = found_by(await tried(here, await ask(here)))
        assert here.live.find("a") is None
        assert "models" not in here.store.calls
        lrs = await lrs_of(here, CONFIG)
        policy = here.catalog.find("small").policy
    expected = replace(CONFIG, initial_lr=found.learning_rate)
    assert lrs.tobytes() == replayed(policy, expected, LOSSES[:60]).tobytes()


async def test_a_search_ends_though_the_model_cannot_be_read(tmp_path: Path, model_file: Path) -> None:
    """Where the model of the run is damaged in the store, the schedule that needs none follows."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        await tried_but_one(here)
    with contextlib.closing(sqlite3.connect(next((tmp_path / "d").rglob("*.sqlite3")))) as store:
        store.execute("UPDATE models SET data = x'00'")
        store.commit()
    async with harness(tmp_path / "d", None) as here:
        found = found_by(await tried(here, await ask(here)))
        config = await config_of(here)
        assert (rate_of(config), config.schedule) == (found.learning_rate, WSD)


async def test_a_decided_run_keeps_what_is_not_of_its_policy(tmp_path: Path, model_file: Path) -> None:
    """The task, the feeder, the shard, the ranks and the times of a run stay what they were."""
    config = replace(CONFIG, ranks=RanksConfig())
    request = OpenRequest(
        run_id="a", asked=config, group="sweep", task="cifar10", feeder="process-1", world_size=3
    )

    async def stored(here: Harness) -> StoredRun:
        return (await in_store(here, lambda store: store.get(["a"])))["a"]  # type: ignore[no-any-return]

    async with harness(tmp_path / "d", model_file) as here:
        await here.open_one(request)
        before = await stored(here)
        await searched(here)
        after = await stored(here)
        kept = ("key", "shard", "task", "feeder", "world_size", "create_time", "update_time")
        assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
        assert (after.model_name, after.config.ranks) == ("wsd", before.config.ranks)
        live = here.live.find("a")
        assert live is not None
        assert live.record["shard"] == before.shard
        answers = await asyncio.gather(*(here.report(live.handle, [(0, rank, 1.0)]) for rank in range(3)))
        assert not any(answer.errors for answer in answers)
        assert live.record["next_step"] == 1


@pytest.mark.parametrize(
    ("bounds", "best"),
    [({"max_lr": 1e-3}, 1e-3), ({"min_lr": 2.0}, 2.0), ({"max_lr": 1e3, "min_lr": 0.0}, None)],
)
async def test_what_is_found_is_within_the_bounds(
    tmp_path: Path, model_file: Path, bounds: dict[str, float], best: float | None
) -> None:
    """A run begins within its bounds, so what is found is, too: callers see the rate that is advised."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        free = found_by(await searched(here)).learning_rate
        await here.ending.delete("a")
        await here.open("a", replace(CONFIG, **bounds))
        found = found_by(await searched(here))
        assert found.learning_rate == best or (best is None and found.learning_rate == free)
        assert rate_of(await config_of(here)) == found.learning_rate
        assert max(await lrs_of(here)) == found.learning_rate


@pytest.mark.parametrize("initial_lr", [5e-324, 1e-300, 1e300, 1.7e308])
@pytest.mark.parametrize("keep_policy", [False, True])
async def test_any_initial_lr_can_be_searched_from(
    tmp_path: Path, model_file: Path, initial_lr: float, *, keep_policy: bool
) -> None:
    """From the smallest and the largest learning rates that a run may be given, searches end as others do."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", replace(CONFIG, initial_lr=initial_lr))
        view = await ask(here, keep_policy=keep_policy)
        for number in range(20):
            if not isinstance(view.next, Trial):
                break
            assert 0.0 < view.next.learning_rate < math.inf
            view = await ask(here, (number, -float(number), view.next.steps), keep_policy=keep_policy)
        assert 1e-30 <= found_by(view).learning_rate <= 1e30
        assert not (await here.ask((await here.open("a")).handle, 0, 1.0)).errors


@pytest.mark.parametrize("horizon", [1, 2, 9, 20, 89])
@pytest.mark.parametrize("charge_steps", [False, True])
async def test_short_runs_can_be_searched_for(
    tmp_path: Path, model_file: Path, horizon: int, *, charge_steps: bool
) -> None:
    """Of however few steps a run is, and however many its trials take, its search ends with a schedule."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", RunConfig(horizon=horizon))
        found = found_by(await searched(here, charge_steps=charge_steps))
        assert (await config_of(here)).schedule is not None
        lrs = await lrs_of(here, count=horizon)
        assert ((lrs >= 0.0) & (lrs <= found.learning_rate)).all()
        assert lrs[0] > 0.0


# ------------------------------------------------------------------------------ restarts, deletions


async def test_a_deleted_run_leaves_no_search(tmp_path: Path, model_file: Path) -> None:
    """With a run all of its searches are deleted, and a new run of the id has none."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        await ask(here, start="t")
        await searched(here)
        await here.ending.delete("a")
        assert rows(here) == []
        with raises(Reason.RUN_NOT_FOUND):
            await here.searches.get("a")
        assert (await here.open("a", CONFIG)).created
        with raises(Reason.NO_SEARCH):
            await here.searches.get("a")
        assert (await ask(here)).attempt == 1


async def test_a_restarted_run_has_no_search(tmp_path: Path, model_file: Path) -> None:
    """A restart drops what was found with the run; the new run may be given any policy."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        await searched(here)
        again = await here.open("a", CONFIG, model="small", mode="restart")
        assert (again.created, again.view.config) == (True, CONFIG)
        assert rows(here) == []
        with raises(Reason.NO_SEARCH):
            await here.searches.get("a")
        lrs = await here.follow(again.handle, LOSSES[:9])
        assert lrs.tobytes() == replayed(here.catalog.find("").policy, CONFIG, LOSSES[:9]).tobytes()


async def test_a_beginning_goes_on_with_what_was_found(tmp_path: Path, model_file: Path) -> None:
    """A process that begins a run which has no observation has what an earlier process found."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        view = await searched(here)
        begun = await here.open("a", CONFIG, mode="begin")
        assert rate_of(begun.view.config) == found_by(view).learning_rate


# ------------------------------------------------------------------------------- stores that fail


@pytest.mark.parametrize("method", ["search", "put_search"])
@pytest.mark.parametrize("last", [False, True], ids=["middle", "end"])
async def test_a_call_that_fails_may_be_made_again(
    tmp_path: Path, model_file: Path, method: str, *, last: bool
) -> None:
    """When the store fails, the search and the run are as before, and the same call then succeeds."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a", CONFIG)
        view = await tried_but_one(here) if last else await tried(here, await ask(here))
        here.store.failing = {method}
        with raises(Reason.STORE):
            await tried(here, view)
        here.store.failing.clear()
        assert facts(await here.searches.get("a")) == facts(view)
        assert await config_of(here) == CONFIG
        assert (await here.open("a")).handle == opened.handle
        after = await tried(here, view)
        assert len(after.search.results) == len(view.search.results) + 1
        assert isinstance(after.next, Found if last else Trial)


async def test_a_decision_that_fails_leaves_the_run_as_it_was(tmp_path: Path, model_file: Path) -> None:
    """After a store's failure at the end of a search, the run goes on under its handle without the search."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a", CONFIG)
        view = await tried_but_one(here)
        here.store.failing = {"put_search"}
        with raises(Reason.STORE):
            await tried(here, view)
        here.store.failing.clear()
        lrs = await here.follow(opened.handle, LOSSES[:9])
        alone = replayed(here.catalog.find("").policy, CONFIG, LOSSES[:9])
        assert lrs.tobytes() == alone.tobytes()
        assert [len(group.run_ids) - len(group._free) for group in here.live.groups] == [1, 0]
        assert (await here.history("a")).lrs.tobytes() == alone.tobytes()


async def test_a_decision_of_unknown_outcome_is_read_back(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the store fails after it stored the end of a search, the run goes on from what the store holds."""
    async with harness(tmp_path / "d", model_file) as here:
        stale = (await here.open("a", CONFIG)).handle
        view = await tried_but_one(here)
        monkeypatch.setattr(failpoints, "ARMED", failpoints.parse("store.committed=error"))
        with raises(Reason.STORE):
            await tried(here, view)
        assert (await here.ask(stale, 0, 1.0)).errors[0].reason == Reason.STALE_HANDLE
        again = await tried(here, view)
        assert rate_of(await config_of(here)) == found_by(again).learning_rate
        lrs = await lrs_of(here)
    expected = replace(CONFIG, schedule=replace(WSD, base_lr=found_by(again).learning_rate))
    assert lrs.tobytes() == replayed(schedule_policy(WSD), expected, LOSSES[:60]).tobytes()


@pytest.mark.parametrize("last", [False, True], ids=["middle", "end"])
@pytest.mark.parametrize("method", ["get", "search", "put_search"])
async def test_a_result_is_taken_though_its_caller_goes_away(
    tmp_path: Path, model_file: Path, method: str, *, last: bool
) -> None:
    """A caller that leaves half-way leaves no search half-stored: memory and store agree after."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        view = await tried_but_one(here) if last else await tried(here, await ask(here))
        here.store.calls.clear()
        here.store.unblocked.clear()
        task = asyncio.create_task(tried(here, view))
        while method not in here.store.calls:
            here.store.unblocked.set()
            await asyncio.sleep(0)
        here.store.unblocked.clear()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        here.store.unblocked.set()
        after = await tried(here, view)
        assert len(after.search.results) == len(view.search.results) + 1
        assert facts(await here.searches.get("a")) == facts(after)
        if last:
            found = found_by(after)
            lrs = await lrs_of(here)
            expected = replace(CONFIG, schedule=replace(WSD, base_lr=found.learning_rate))
            assert lrs.tobytes() == replayed(schedule_policy(WSD), expected, LOSSES[:60]).tobytes()


async def test_results_that_come_together_are_taken_one_by_one(tmp_path: Path, model_file: Path) -> None:
    """Of two losses that processes report of one trial at once, one is recorded and the other refused."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a", CONFIG)
        await ask(here)
        calls: list[Awaitable[SearchView]] = [ask(here, (0, loss, 0)) for loss in (1.0, 2.0, 1.0)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        refused = [one.reason for one in outcomes if isinstance(one, AdvisorError)]
        views = [facts(one) for one in outcomes if isinstance(one, SearchView)]
        assert refused == [Reason.STALE_STEP]
        assert views == [facts(await here.searches.get("a"))] * 2


async def test_memory_that_is_full_is_no_end_of_a_run(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no group for the new schedule, the result is refused, and is taken once there is one."""
    monkeypatch.setattr(run_groups, "MAX_GROUPS", 2)
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a", CONFIG)
        await here.open("other", replace(CONFIG, schedule=COSINE))
        view = await tried_but_one(here)
        with raises(Reason.MEMORY_FULL, field="config.schedule"):
            await tried(here, view)
        assert (await here.open("a")).handle == opened.handle
        await here.ending.delete("other")
        found_by(await tried(here, view))
        assert (await here.records.get("a")).snapshot.status == RunStatus.ACTIVE
