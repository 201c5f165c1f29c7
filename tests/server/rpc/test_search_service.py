"""Searches over real sockets: trials, decisions, and what is refused."""

from __future__ import annotations

import math
import sqlite3
import struct
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlrs_core.config import Optimizer, RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.schedules.kernel import schedule_policy
from mlrs_core.search import SearchSetup, Trial, TrialResult, what_next
from mlrs_proto import v1 as pb
from tests.server.auth.tenants import Tenants, tenants
from tests.server.runs.searches import loss_of
from tests.server.support import LOSSES, Refusal, advised, create, refused, replayed, service

Code = grpc.StatusCode
TIMEOUT = 20
HORIZON = 400
SGD: Any = {"horizon": HORIZON, "optimizer": pb.OPTIMIZER_SGD}


@pytest.fixture
async def stub(tmp_path: Path, model_file: Path) -> AsyncIterator[Any]:
    """A daemon's stub."""
    async with service(tmp_path / "d", model_file) as (connected, _):
        yield connected


def asking(result: tuple[int, float, int] | None = None, **fields: Any) -> pb.SearchTrialRequest:
    """Return a request about the run `a`, with the number, loss and steps of a trial if one was made."""
    request = pb.SearchTrialRequest(**{"run_id": "a", "start": "s", **fields})
    if result is not None:
        number, loss, steps = result
        request.result.CopyFrom(pb.TrialResult(number=number, loss=loss, steps=steps))
    return request


async def ask(stub: Any, result: tuple[int, float, int] | None = None, **fields: Any) -> pb.Search:
    """Report a trial, or ask for one."""
    response = await stub.SearchTrial(asking(result, **fields), timeout=TIMEOUT)
    search: pb.Search = response.search
    return search


async def known(stub: Any, run_id: str = "a") -> pb.Search:
    """Read the search of a run."""
    response = await stub.GetSearch(pb.GetSearchRequest(run_id=run_id), timeout=TIMEOUT)
    search: pb.Search = response.search
    return search


async def searched(stub: Any, **fields: Any) -> pb.Search:
    """Make a whole search."""
    search = await ask(stub, **fields)
    while search.HasField("trial"):
        trial = search.trial
        search = await ask(stub, (trial.number, loss_of(trial), trial.steps), **fields)
    return search


async def config_of(stub: Any, run_id: str = "a") -> pb.RunConfig:
    """Return the config of a run."""
    response = await stub.GetRun(pb.GetRunRequest(run_id=run_id), timeout=TIMEOUT)
    config: pb.RunConfig = response.run.config
    return config


async def test_a_search_over_the_wire(stub: Any) -> None:
    """The daemon asks for the trials of the rules; at the end the run begins with what they find."""
    await create(stub, "a", **SGD)
    setup, results = SearchSetup(horizon=HORIZON, optimizer=Optimizer.SGD), list[TrialResult]()
    search = await ask(stub)
    while search.HasField("trial"):
        wanted = what_next(setup, results)
        assert isinstance(wanted, Trial)
        assert search.trial == pb.Trial(
            number=len(results), learning_rate=wanted.learning_rate, steps=wanted.steps
        )
        loss = loss_of(wanted)
        results.append(TrialResult(learning_rate=wanted.learning_rate, steps=wanted.steps, loss=loss))
        search = await ask(stub, (search.trial.number, loss, wanted.steps))
        assert [(one.learning_rate, one.steps, one.loss) for one in search.trials] == [
            (one.learning_rate, one.steps, one.loss) for one in results
        ]
        assert (search.start, search.attempt) == ("s", 1)
        assert await known(stub) == search
    found: Any = what_next(setup, results)
    assert search.found == pb.FoundRate(
        learning_rate=found.learning_rate, octaves=found.octaves, steps=found.steps, charged=False
    )
    reopened = await stub.OpenRun(pb.OpenRunRequest(run_id="a", config=pb.RunConfig(**SGD)), timeout=TIMEOUT)
    assert not reopened.created
    config = reopened.run.config
    assert (config.found, config.model) == (search.found, "")
    wsd = pb.Schedule.Wsd(final_lr=0.0, cooldown_fraction=0.2)
    assert config.schedule == pb.Schedule(warmup=20, wsd=wsd)
    spec = ScheduleSpec(ScheduleKind.WSD, base_lr=found.learning_rate, warmup=20)
    alone = replayed(schedule_policy(spec), RunConfig(horizon=HORIZON, schedule=spec), LOSSES[:60])
    assert await advised(stub, "a", LOSSES[:60]) == alone.tolist()
    assert await known(stub) == search


async def test_the_options_of_a_search_reach_the_run(stub: Any) -> None:
    """A run keeps its model, and its steps are charged, where the call says so."""
    await create(stub, "a", **SGD)
    model = (await config_of(stub)).model
    search = await searched(stub, keep_policy=True, charge_steps=True)
    config = await config_of(stub)
    assert (config.model, config.HasField("schedule"), config.horizon) == (model, False, HORIZON)
    assert config.found == search.found
    assert search.found.charged
    (listed,) = (await stub.ListRuns(pb.ListRunsRequest(), timeout=TIMEOUT)).runs
    assert listed.config == config


async def test_a_result_of_zeros_is_a_result(stub: Any) -> None:
    """The result of trial 0 with a loss of 0 after 0 steps is told from no result."""
    await create(stub, "a", **SGD)
    assert (await ask(stub)).trial.number == 0
    assert (await ask(stub)).trial.number == 0
    search = await ask(stub, (0, 0.0, 0))
    assert search.trial.number == 1
    assert [(one.loss, one.steps) for one in search.trials] == [(0.0, 0)]


async def test_diverged_trials_are_repeated_alike(stub: Any) -> None:
    """A result of any NaN, or of an infinity, gets the same bytes however often it is reported."""
    await create(stub, "a", **SGD)
    (negative_nan,) = struct.unpack("<d", struct.pack("<Q", 0xFFF8000000000001))
    await ask(stub)
    await ask(stub, (0, 5.0, 0))
    for number, loss in enumerate((math.nan, negative_nan, math.inf, -math.inf), 1):
        request = asking((number, loss, 3))
        answers = {
            (await stub.SearchTrial(request, timeout=TIMEOUT)).search.SerializeToString(deterministic=True)
            for _ in range(3)
        }
        answers.add((await known(stub)).SerializeToString(deterministic=True))
        assert len(answers) == 1


async def test_another_start_is_another_attempt(stub: Any) -> None:
    """The number of the search tells that trials were begun anew."""
    await create(stub, "a", **SGD)
    search = await ask(stub)
    await ask(stub, (0, 1.0, search.trial.steps))
    again = await ask(stub, start="t")
    assert (again.attempt, again.start, len(again.trials), again.trial.number) == (2, "t", 0, 0)


WRONG: list[tuple[str, Any, Code, str, str, str]] = [
    # RPC, request, status, reason, field, in the message
    (
        "SearchTrial",
        asking(run_id="nobody"),
        Code.NOT_FOUND,
        "RUN_NOT_FOUND",
        "run_id",
        "there is no run 'nobody'",
    ),
    (
        "GetSearch",
        pb.GetSearchRequest(run_id="nobody"),
        Code.NOT_FOUND,
        "RUN_NOT_FOUND",
        "run_id",
        "there is no run 'nobody'",
    ),
    ("SearchTrial", asking(run_id=""), Code.INVALID_ARGUMENT, "INVALID_FIELD", "run_id", "1 to 256"),
    ("GetSearch", pb.GetSearchRequest(), Code.INVALID_ARGUMENT, "INVALID_FIELD", "run_id", "1 to 256"),
    (
        "GetSearch",
        pb.GetSearchRequest(run_id="fresh"),
        Code.NOT_FOUND,
        "NO_SEARCH",
        "run_id",
        "run 'fresh' had no search",
    ),
    ("SearchTrial", asking(start=""), Code.INVALID_ARGUMENT, "INVALID_FIELD", "start", "1 to 64 letters"),
    (
        "SearchTrial",
        asking(start="x" * 100_000),
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "start",
        "1 to 64 letters",
    ),
    (
        "SearchTrial",
        asking(run_id="begun"),
        Code.FAILED_PRECONDITION,
        "RUN_BEGUN",
        "run_id",
        "run 'begun' is at step 1, and a search comes before the first step",
    ),
    (
        "SearchTrial",
        asking(run_id="done"),
        Code.FAILED_PRECONDITION,
        "RUN_FINISHED",
        "run_id",
        "is finished",
    ),
    (
        "SearchTrial",
        asking((0, 1.0, 8), run_id="fresh"),
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "result",
        "is of another search",
    ),
    (
        "SearchTrial",
        asking((1, 2.0, 8)),
        Code.FAILED_PRECONDITION,
        "STALE_STEP",
        "result",
        "trial 1 is recorded with a loss of 1.0 after 8 steps",
    ),
    (
        "SearchTrial",
        asking((3, 1.0, 8)),
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "result.number",
        "is 3, and 2 is due",
    ),
    (
        "SearchTrial",
        asking((2**32 - 1, 1.0, 8)),
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "result.number",
        "and 2 is due",
    ),
    (
        "SearchTrial",
        asking((2, 1.0, 2**64 - 1)),
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "result.steps",
        "must be 0 to 8",
    ),
    (
        "OpenRun",
        pb.OpenRunRequest(
            run_id="new", config=pb.RunConfig(horizon=9, found=pb.FoundRate(learning_rate=0.1))
        ),
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "config.found",
        "must be left out",
    ),
    (
        "OpenRun",
        pb.OpenRunRequest(run_id="a", config=pb.RunConfig(found=pb.FoundRate())),
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "config.found",
        "a search (SearchTrial) sets it",
    ),
]


async def test_every_wrong_request_is_named(stub: Any) -> None:
    """A wrong request has its status, reason and field, a message that says what to do, and no effect."""
    for run_id in ("a", "fresh", "begun", "done"):
        await create(stub, run_id, **SGD)
    await ask(stub)
    await ask(stub, (0, 9.0, 0))
    search = await ask(stub, (1, 1.0, 8))
    await advised(stub, "begun", [1.0])
    await stub.FinishRun(pb.FinishRunRequest(run_id="done"), timeout=TIMEOUT)
    for rpc, request, code, reason, field, says in WRONG:
        refusal = await refused(getattr(stub, rpc)(request, timeout=TIMEOUT))
        told = (refusal.code, refusal.reason, refusal.field)
        assert told == (code, f"ERROR_REASON_{reason}", field), (rpc, str(request)[:200], refusal)
        assert says in refusal.message, (rpc, refusal)
        assert len(refusal.message) <= 1000
    assert await known(stub) == search
    runs = (await stub.ListRuns(pb.ListRunsRequest(), timeout=TIMEOUT)).runs
    assert [run.run_id for run in runs] == ["a", "begun", "done", "fresh"]


async def test_what_is_read_of_a_run_may_be_opened_with(stub: Any) -> None:
    """The config of a run after its search opens it again once `found` is left out, as the message says."""
    await create(stub, "a", **SGD)
    await searched(stub)
    config = await config_of(stub)
    request = pb.OpenRunRequest(run_id="a", config=config)
    assert (await refused(stub.OpenRun(request, timeout=TIMEOUT))).field == "config.found"
    request.config.ClearField("found")
    assert (await stub.OpenRun(request, timeout=TIMEOUT)).run.config == config


async def test_a_damaged_search_is_data_loss(tmp_path: Path, model_file: Path) -> None:
    """A search that cannot be read is DATA_LOSS for both calls; the run is advised, and may be restarted."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        await create(stub, "a", **SGD)
        await ask(stub)
    with closing(sqlite3.connect(tmp_path / "d" / "mlrs.sqlite3")) as file:
        file.execute("UPDATE searches SET record = x'00'")
        file.commit()
    async with service(tmp_path / "d", model_file) as (stub, _):
        for call in (stub.SearchTrial(asking()), stub.GetSearch(pb.GetSearchRequest(run_id="a"))):
            refusal = await refused(call)
            assert (refusal.code, refusal.reason) == (Code.DATA_LOSS, "ERROR_REASON_DAMAGED")
            assert "run 'a'" in refusal.message
        assert len(await advised(stub, "a", [1.0])) == 1
        await stub.OpenRun(pb.OpenRunRequest(run_id="a", mode=pb.OPEN_MODE_RESTART), timeout=TIMEOUT)
        assert (await ask(stub)).attempt == 1


# ------------------------------------------------------------------------------------- tenants


@pytest.fixture
async def home(tmp_path: Path, model_file: Path) -> AsyncIterator[Tenants]:
    """A daemon with tokens."""
    async with tenants(tmp_path / "d", model_file) as running:
        yield running


async def test_anothers_search_is_not_seen(home: Tenants) -> None:
    """A search of another tenant is as that of no run, whatever is asked; one of the same id is apart."""
    owner, stranger = home.caller("acme"), home.caller("evil")
    await home.known(owner, stranger)
    await owner.create("a", **SGD)
    await owner.call("SearchTrial", asking())
    (theirs,) = await owner.call("SearchTrial", asking((0, 1.0, 0)))

    async def refusals(run_id: str) -> list[Refusal]:
        return [
            await stranger.refused("SearchTrial", asking(run_id=run_id)),
            await stranger.refused("SearchTrial", asking((0, 1.0, 0), run_id=run_id)),
            await stranger.refused("SearchTrial", asking((0, 2.0, 9), run_id=run_id)),
            await stranger.refused("GetSearch", pb.GetSearchRequest(run_id=run_id)),
        ]

    of_theirs, of_nothing = await refusals("a"), await refusals("b")
    assert [str(one).replace("'a'", "'b'") for one in of_theirs] == [str(one) for one in of_nothing]
    assert {one.reason for one in of_nothing} == {"ERROR_REASON_RUN_NOT_FOUND"}
    await stranger.create("a", **SGD)
    (own,) = await stranger.call("SearchTrial", asking())
    assert (own.search.attempt, len(own.search.trials)) == (1, 0)
    (read,) = await owner.call("GetSearch", pb.GetSearchRequest(run_id="a"))
    assert read.search == theirs.search


async def test_messages_have_bare_names(home: Tenants) -> None:
    """What a tenant is told of its searches names its runs as it does."""
    owner = home.caller("acme")
    await home.known(owner)
    await owner.create("a", **SGD)
    refusal = await owner.refused("GetSearch", pb.GetSearchRequest(run_id="a"))
    assert (refusal.reason, refusal.message) == ("ERROR_REASON_NO_SEARCH", "run_id: run 'a' had no search")
    await owner.call("Advise", pb.AdviseRequest(run_id="a", step=0, loss=1.0))
    refusal = await owner.refused("SearchTrial", asking())
    assert refusal.reason == "ERROR_REASON_RUN_BEGUN"
    assert "run 'a' is at step 1" in refusal.message
