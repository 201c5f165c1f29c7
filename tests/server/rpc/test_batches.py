"""Opening and finishing many runs in one call: as single calls would, all or none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from mlrs_core.config import RunConfig, ScheduleKind, ScheduleSpec
from mlrs_proto import v1 as pb
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.live import arrays as runs
from mlrs_server.live import run_groups
from mlrs_server.live.views import RunView
from mlrs_server.runs.open_request import MAX_BATCH, Opened, OpenRequest
from tests.server.support import LOSSES, Harness, columns, harness, raises, refused, replayed, service
from tests.support.daemon import write_random_model

LACKING = RunConfig(horizon=60)
COMPLETING = RunConfig(scale=0.5)
SCHEDULED = RunConfig(horizon=60, schedule=ScheduleSpec(ScheduleKind.COSINE, base_lr=0.1))
BEGUN = 5
"""Steps that runs which have begun have answered."""
KINDS = ["new", "fresh", "begun", "finished"]
"""What a run may be before a batch: not there, without an observation, with some, finished."""


def request(run_id: str, asked: RunConfig | None = None, **rest: Any) -> OpenRequest:
    """Return a request to open a run."""
    return OpenRequest(run_id=run_id, asked=asked or RunConfig(), **rest)


def requests_of(names: Iterable[str], asked: RunConfig | None = None) -> list[OpenRequest]:
    """Return requests to open runs that differ in their ids alone."""
    return [request(name, asked) for name in names]


async def prepared(here: Harness, kinds: Sequence[str]) -> dict[str, Opened]:
    """Make runs of some kinds, `run-0`, `run-1` and so on; return those that are there, as opened."""
    opened = {}
    for index, kind in enumerate(kinds):
        if kind != "new":
            name = f"run-{index}"
            opened[name] = await here.open(name, LACKING)
            await here.follow(opened[name].handle, LOSSES[: 0 if kind == "fresh" else BEGUN])
            if kind == "finished":
                await here.finish(name)
    return opened


def facts(view: RunView) -> dict[str, Any]:
    """Return a run in comparable parts, without its times: NaNs and arrays as bytes."""
    moving = {name: np.asarray(value).tobytes() for name, value in vars(view.snapshot).items()}
    return {**vars(view), "snapshot": moving, "create_time": 0, "update_time": 0}


async def everything(here: Harness) -> list[dict[str, Any]]:
    """Return all runs."""
    views = await here.records.list(prefix="", status=None, after="", limit=2 * MAX_BATCH)
    return [facts(view) for view in views]


def draw_request(draw: Any, index: int, kind: str) -> OpenRequest:
    """Return a request that a run of a kind can be opened with."""
    name = f"run-{index}"
    model = draw(st.sampled_from(["", "small", "default"]))
    match kind:
        case "new":
            mode, step = draw(st.sampled_from(["open", "create"])), draw(st.sampled_from([None, 0]))
            asked = draw(st.sampled_from([RunConfig(), LACKING, COMPLETING, SCHEDULED]))
            return request(
                name, asked, mode=mode, resume_from=step, model="" if asked is SCHEDULED else model
            )
        case "fresh":
            step, may_complete = draw(st.sampled_from([None, 0])), True
        case "begun":
            step = draw(st.none() | st.integers(0, BEGUN))
            may_complete = step == 0
        case _:
            step = draw(st.integers(0, BEGUN))
            may_complete = step == 0
    asked = draw(st.sampled_from([RunConfig(), LACKING, *([COMPLETING] if may_complete else [])]))
    mode = draw(st.sampled_from(["open", "resume"]))
    return request(name, asked, mode=mode, resume_from=step, model=model)


# ---------------------------------------------------------------------------------- opening


@settings(max_examples=40)
@given(data=st.data())
def test_a_batch_does_what_single_calls_do(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Runs opened together are as if opened one by one: what is answered, what is stored, which handles."""
    folder = tmp_path_factory.mktemp("batch")
    kinds = data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6))
    requests = data.draw(st.permutations([draw_request(data.draw, *each) for each in enumerate(kinds)]))
    restarts = data.draw(st.booleans())
    model = write_random_model(folder / "small.safetensors")

    async def outcome(name: str, *, together: bool) -> list[Any]:
        async with harness(folder / name, model) as here:
            before = await prepared(here, kinds)
            if not restarts:
                return await opened_in(here, before, together=together)
        async with harness(folder / name, model) as here:
            return await opened_in(here, {}, together=together)

    async def opened_in(here: Harness, before: dict[str, Opened], *, together: bool) -> list[Any]:
        if together:
            opened = await here.opener.open_many(requests)
        else:
            opened = [await here.open_one(each) for each in requests]
        seen: list[Any] = []
        for each, now in zip(requests, opened, strict=True):
            same_handle = each.run_id in before and before[each.run_id].handle == now.handle
            at = now.view.snapshot.next_step
            seen += [facts(now.view), now.created, same_handle]
            seen += [(await here.follow(now.handle, LOSSES[at : at + 4], start=at)).tobytes()]
            seen += [(await here.history(each.run_id)).lrs.tobytes()]
        return [*seen, await everything(here)]

    together = asyncio.run(outcome("together", together=True))
    assert together == asyncio.run(outcome("one-by-one", together=False))


WRONG: dict[str, tuple[OpenRequest, Reason]] = {
    "a snapshot": (request("bad", RunConfig(snapshot=3)), Reason.INVALID_FIELD),
    "no horizon": (
        request("bad", RunConfig(schedule=ScheduleSpec(ScheduleKind.COSINE))),
        Reason.INVALID_FIELD,
    ),
    "a model": (request("bad", model="nobody"), Reason.MODEL_NOT_FOUND),
    "a run to resume": (request("bad", mode="resume"), Reason.RUN_NOT_FOUND),
    "a step of no run": (request("bad", resume_from=1), Reason.INVALID_FIELD),
    "another config": (request("begun", RunConfig(horizon=61)), Reason.CONFIG_MISMATCH),
    "bounds that cross": (request("fresh", RunConfig(min_lr=2.0)), Reason.INVALID_FIELD),
    "an id that is taken": (request("fresh", mode="create"), Reason.RUN_EXISTS),
    "a step too far": (request("begun", resume_from=BEGUN + 1), Reason.INVALID_FIELD),
    "a finished run": (request("finished"), Reason.RUN_FINISHED),
    "a run twice": (request("run-0"), Reason.INVALID_FIELD),
}
"""Requests that fail a batch, and why."""
FAILING = ["get", "append", "create", "memory"]
"""What else fails one: a method of the store, or too little memory."""


@settings(max_examples=60)
@given(data=st.data())
def test_a_batch_that_fails_changes_nothing(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One bad run, a store that fails or a full memory: no run is created, and all are as they were."""
    folder = tmp_path_factory.mktemp("batch")
    kinds = ["new", *data.draw(st.lists(st.sampled_from(KINDS), max_size=4))]
    fault = data.draw(st.sampled_from([*WRONG, *FAILING]))
    lacks = "pending" if fault == "append" else "begun"  # only what has more than is stored needs a flush
    bad, reason = WRONG.get(fault, (request(lacks, resume_from=2), Reason.STORE))
    requests = [bad, *(draw_request(data.draw, *each) for each in enumerate(kinds))]
    if fault == "memory":
        reason, requests = Reason.MEMORY_FULL, requests + requests_of(f"more-{n}" for n in range(9))
    requests = data.draw(st.permutations(requests))

    async def scenario() -> None:
        async with harness(folder / "d", write_random_model(folder / "small.safetensors")) as here:
            opened = await prepared(here, kinds) | {
                name: await here.open(name, RunConfig(max_lr=1.0)) for name in ("fresh", "begun", "finished")
            }
            for name in ("begun", "finished"):
                await here.follow(opened[name].handle, LOSSES[:BEGUN])
            await here.finish("finished")
            was = await everything(here)
            pending = await here.open("pending")
            await here.follow(pending.handle, LOSSES[:3])
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(runs, "MAX_ROWS", 8 if fault == "memory" else runs.MAX_ROWS)
                here.store.failing = {fault} & set(FAILING)
                with raises(reason, match=repr(bad.run_id) if fault in WRONG else ""):
                    await here.opener.open_many(requests)
                here.store.failing.clear()
            assert [run for run in await everything(here) if run["run_id"] != "pending"] == was
            for name, run in {**opened, "pending": pending}.items():
                view = await here.records.get(name)
                at = view.snapshot.next_step
                if view.snapshot.status != RunStatus.FINISHED:
                    lrs = await here.follow(run.handle, LOSSES[at : at + 3], start=at)
                    alone = replayed(here.catalog.find("").policy, view.config, LOSSES[: at + 3])
                    assert lrs.tobytes() == alone[at:].tobytes()
        async with harness(folder / "d", folder / "small.safetensors") as here:
            there = [run["run_id"] for run in await everything(here)]
            assert there == sorted([*opened, "pending"])

    asyncio.run(scenario())


@pytest.mark.parametrize("size", [0, MAX_BATCH + 1])
async def test_the_size_of_a_batch_is_bounded(tmp_path: Path, model_file: Path, size: int) -> None:
    """Empty and too large batches are refused; the error names the field."""
    names = [f"run-{index}" for index in range(size)]
    async with harness(tmp_path / "d", model_file) as here:
        with raises(Reason.INVALID_FIELD, field="requests", match=f"this one about {size}"):
            await here.opener.open_many(requests_of(names))
        with raises(Reason.INVALID_FIELD, field="run_ids", match=f"this one about {size}"):
            await here.ending.finish_many(names)


async def test_a_run_is_in_a_batch_once(tmp_path: Path, model_file: Path) -> None:
    """An id that is there twice is named."""
    async with harness(tmp_path / "d", model_file) as here:
        with raises(Reason.INVALID_FIELD, field="requests", match="run 'b' is given twice"):
            await here.opener.open_many(requests_of("abcb"))
        await here.opener.open_many(requests_of("abc"))
        with raises(Reason.INVALID_FIELD, field="run_ids", match="run 'b' is given twice"):
            await here.ending.finish_many(["a", "b", "c", "b"])


async def test_a_batch_is_stored_at_once(tmp_path: Path, model_file: Path) -> None:
    """However many runs: one look at them, one at models' names, a transaction each to create and to finish.

    Either leaves one line.
    """
    names = [f"run-{index:03}" for index in range(300)]
    async with harness(tmp_path / "d", model_file) as here:
        here.store.calls.clear()
        with capture_logs() as lines:
            opened = await here.opener.open_many(requests_of(reversed(names), LACKING))
            assert here.store.calls == ["get", "model_index", "create"]
            assert [one.view.run_id for one in opened] == names[::-1]
            assert len({one.handle for one in opened}) == len(names)
            asked = await here.ask([one.handle for one in opened], [0] * 300, LOSSES[:300])
            assert not asked.errors
            here.store.calls.clear()
            views = await here.ending.finish_many(names)
        assert here.store.calls == ["append", "get", "finish", "get"]
        assert [view.run_id for view in views] == names
        assert {(view.snapshot.status, view.durable_step) for view in views} == {(RunStatus.FINISHED, 0)}
        assert [(line["event"], line["count"]) for line in lines] == [
            ("runs_created", 300),
            ("runs_finished", 300),
        ]


async def test_rewinds_go_as_far_as_they_can(tmp_path: Path, model_file: Path) -> None:
    """When the store fails at a rewind, those before it are done, and it and those after it are not."""
    async with harness(tmp_path / "d", model_file) as here:
        for name in "abc":
            await here.follow((await here.open(name)).handle, LOSSES[:BEGUN])
        rewind = here.store._store.rewind

        def fails_at_the_second(*args: Any) -> None:
            if here.store.calls.count("rewind") == 2:
                raise AdvisorError(Reason.STORE, "the disk is full")
            rewind(*args)

        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(here.store._store, "rewind", fails_at_the_second)
            with raises(Reason.STORE, match="run 'b'"):
                await here.opener.open_many(
                    [request("new"), *(request(name, resume_from=2) for name in "abc")]
                )
        steps = [run.snapshot.next_step for run in await here.stored.get_all([*"abc", "new"])]
        assert steps == [2, BEGUN, BEGUN, 0]
        with capture_logs() as lines:
            again = await here.opener.open_many([request(name, resume_from=2) for name in "abc"])
        assert [(line["event"], line["count"]) for line in lines] == [("runs_rewound", 2)]
        assert [one.view.snapshot.next_step for one in again] == [2, 2, 2]


async def test_runs_of_a_batch_are_not_dropped_for_it(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a full group, finished runs are dropped for a batch, except those in the batch."""
    monkeypatch.setattr(runs, "MAX_ROWS", 8)
    monkeypatch.setattr(run_groups, "DROPPED_AT_ONCE", 1)
    names = [f"run-{index}" for index in range(8)]
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.opener.open_many(requests_of(names))
        await here.ask([one.handle for one in opened], [0] * 8, [1.0] * 8)
        await here.ending.finish_many(names)
        again = await here.opener.open_many(
            [*(request(name, resume_from=1) for name in names[:6]), *requests_of("ab")]
        )
        assert [one.created for one in again] == [False] * 6 + [True] * 2
        with raises(Reason.MEMORY_FULL, field="model", match="run 'c'"):
            await here.opener.open_many(requests_of("cd"))
        assert not (await here.ask([one.handle for one in again], [1] * 6 + [0] * 2, [1.0] * 8)).errors


async def test_overlapping_batches_do_not_deadlock(tmp_path: Path, model_file: Path) -> None:
    """Batches about the same runs in any order, and single calls among them, all end; an id is one run."""
    names = [f"run-{index}" for index in range(40)]
    rng = np.random.default_rng(3)
    async with harness(tmp_path / "d", model_file) as here:
        batches = [requests_of(rng.permutation(names)[:30].tolist(), LACKING) for _ in range(12)]
        async with asyncio.timeout(30):
            answers = await asyncio.gather(
                *(here.opener.open_many(batch) for batch in batches),
                *(here.opener.open_many(requests_of([name])) for name in names),
            )
            opened = [one for answer in answers for one in answer]
            assert sum(one.created for one in opened) == len(names)
            assert len({(one.view.run_id, one.handle) for one in opened}) == len(names)
            await asyncio.gather(
                *(here.ending.finish_many([each.run_id for each in batch]) for batch in batches),
                *(here.finish(name) for name in names),
            )
        views = await here.records.list(prefix="", status=RunStatus.FINISHED, after="", limit=99)
        assert [view.run_id for view in views] == sorted(names)


@pytest.mark.parametrize("until", ["get", "create", "append", "rewind", "complete"])
async def test_a_batch_ends_though_its_caller_goes_away(tmp_path: Path, model_file: Path, until: str) -> None:
    """A caller that leaves half-way leaves no batch half-done: memory and store agree that it is."""
    asked = [request("new"), request("begun", resume_from=2), request("fresh", COMPLETING)]
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("fresh", LACKING)
        await here.follow((await here.open("begun")).handle, LOSSES[:BEGUN])
        here.store.calls.clear()
        here.store.unblocked.clear()
        task = asyncio.create_task(here.opener.open_many(asked))
        while until not in here.store.calls:
            here.store.unblocked.set()
            await asyncio.sleep(0)
        here.store.unblocked.clear()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        here.store.unblocked.set()
        opened = await here.opener.open_many([request(each.run_id) for each in asked])
        assert [one.created for one in opened] == [False] * 3
        assert [one.view.snapshot.next_step for one in opened] == [0, 2, 0]
        assert opened[2].view.config == LACKING.completed_by(COMPLETING)
        for one in opened:
            at = one.view.snapshot.next_step
            lrs = await here.follow(one.handle, LOSSES[at:9], start=at)
            alone = replayed(here.catalog.find("").policy, one.view.config, LOSSES[:9])
            assert lrs.tobytes() == alone[at:].tobytes()


# ------------------------------------------------------------------------------- finishing


async def test_runs_are_finished_together(tmp_path: Path, model_file: Path) -> None:
    """Runs in memory and not, finished before and not, are all finished and durable; again is no error."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.opener.open_many(requests_of("abcd"))
        for name in "ab":
            await here.follow((await here.open(name)).handle, LOSSES[:BEGUN])
        await here.finish("b")
    async with harness(tmp_path / "d", model_file) as here:
        handle = (await here.open("a")).handle
        await here.follow(handle, LOSSES[BEGUN:9], start=BEGUN)
        for _ in range(2):
            views = await here.ending.finish_many(list("cbad"))
            assert [view.run_id for view in views] == list("cbad")
            assert {view.snapshot.status for view in views} == {RunStatus.FINISHED}
            assert [view.durable_step for view in views] == [-1, BEGUN - 1, 8, -1]
        assert (await here.ask(handle, 9, 1.0)).errors[0].reason == Reason.RUN_FINISHED
    async with harness(tmp_path / "d", model_file) as here:
        assert len(await here.records.list(prefix="", status=RunStatus.FINISHED, after="", limit=9)) == 4


@pytest.mark.parametrize("fault", ["a missing run", "append", "finish"])
async def test_runs_are_finished_all_or_none(tmp_path: Path, model_file: Path, fault: str) -> None:
    """One id without a run, or a store that fails: none is finished, and all continue with their handles."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.opener.open_many(requests_of("abc"))
        for one in opened[:2]:
            await here.follow(one.handle, LOSSES[:3])
        here.store.failing = {fault}
        with raises(*([Reason.RUN_NOT_FOUND] if " " in fault else [Reason.STORE])):
            await here.ending.finish_many(["a", "b", "c", *(["nobody"] if " " in fault else [])])
        here.store.failing.clear()
        for one, at in zip(opened, [3, 3, 0], strict=True):
            await here.follow(one.handle, LOSSES[at:6], start=at)
        assert {run["run_id"] for run in await everything(here)} == set("abc")
        views = await here.records.list(prefix="", status=RunStatus.ACTIVE, after="", limit=9)
        assert [view.snapshot.next_step for view in views] == [6, 6, 6]
        finished = await here.ending.finish_many(list("abc"))
        assert {view.snapshot.status for view in finished} == {RunStatus.FINISHED}


async def test_followers_see_a_batch(tmp_path: Path, model_file: Path) -> None:
    """A follower gets the end of runs that are finished together, and a rewind in a batch."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.opener.open_many(requests_of("ab"))
        for one in opened:
            await here.follow(one.handle, LOSSES[:BEGUN])
        await here.live.journal.flush()
        followed: dict[str, list[float]] = {"a": [], "b": []}

        async def follow(name: str) -> None:
            async for _, _, part in here.records.watch(name, 0, follow=True):
                followed[name] += part.losses.tolist()

        async with asyncio.timeout(10), asyncio.TaskGroup() as followers:
            for name in "ab":
                followers.create_task(follow(name))
            while min(map(len, followed.values())) < BEGUN:  # noqa: ASYNC110  # until both have what there is
                await asyncio.sleep(0.001)
            again = await here.opener.open_many([request("a", resume_from=2), request("b")])
            await here.follow(again[0].handle, [9.0, 8.0], start=2)
            await here.ending.finish_many(["a", "b"])
        assert followed == {"a": [*LOSSES[:BEGUN].tolist(), 9.0, 8.0], "b": LOSSES[:BEGUN].tolist()}


async def test_a_caller_that_goes_away_leaves_runs_finished(tmp_path: Path, model_file: Path) -> None:
    """Finishing is completed even if the caller has disconnected."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.opener.open_many(requests_of("abc"))
        here.store.calls.clear()
        here.store.unblocked.clear()
        task = asyncio.create_task(here.ending.finish_many(list("abc")))
        while "get" not in here.store.calls:  # noqa: ASYNC110  # until the store's thread has it
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        here.store.unblocked.set()
        while here.changes._tasks:
            await asyncio.wait(here.changes._tasks)
        views = await here.records.list(prefix="", status=RunStatus.FINISHED, after="", limit=9)
        assert [view.run_id for view in views] == list("abc")


# -------------------------------------------------------------------------------- the wire


async def test_a_sweep_over_the_wire(tmp_path: Path, model_file: Path) -> None:
    """A thousand runs open in one call, are advised by their handles, and finish in one call."""
    names = [f"sweep/{index:04}" for index in range(MAX_BATCH)]
    async with service(tmp_path / "d", model_file) as (stub, _):
        asked = [
            pb.OpenRunRequest(run_id=name, config=pb.RunConfig(scale=1.0 + index))
            for index, name in enumerate(names)
        ]
        response = await stub.BatchOpenRuns(pb.BatchOpenRunsRequest(requests=asked), timeout=20)
        opened = response.responses
        assert [one.run.run_id for one in opened] == names
        assert [one.run.config.scale for one in opened] == [1.0 + index for index in range(MAX_BATCH)]
        assert all(one.created for one in opened)
        call = stub.StreamAdvice(timeout=20)
        await call.write(columns(*((one.run_handle, 0, 2.0) for one in opened)))
        advice = (await call.read()).advice
        assert len(advice.learning_rates) == MAX_BATCH
        assert not advice.errors
        call.cancel()
        finished = await stub.BatchFinishRuns(pb.BatchFinishRunsRequest(run_ids=names), timeout=20)
        assert [run.run_id for run in finished.runs] == names
        assert {(run.status, run.durable_step) for run in finished.runs} == {(pb.RUN_STATUS_FINISHED, 0)}


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.03, 0.06])
async def test_a_call_that_is_cancelled_opens_all_or_none(
    tmp_path: Path, model_file: Path, after_s: float
) -> None:
    """Whenever a client hangs up, it finds all runs of its call there when it comes back, or none."""
    asked = [pb.OpenRunRequest(run_id=f"run-{index}") for index in range(MAX_BATCH)]
    async with service(tmp_path / "d", model_file) as (stub, _):
        call = stub.BatchOpenRuns(pb.BatchOpenRunsRequest(requests=asked), timeout=20)
        await asyncio.sleep(after_s)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        again = await stub.BatchOpenRuns(pb.BatchOpenRunsRequest(requests=asked), timeout=20)
        assert len({one.created for one in again.responses}) == 1
        assert {one.run.next_step for one in again.responses} == {0}


async def test_what_is_wrong_with_a_batch_is_named(tmp_path: Path, model_file: Path) -> None:
    """The first run at fault is named by its id, its field by its name; no run is created."""
    wrong: list[tuple[pb.OpenRunRequest, str, str]] = [
        (
            pb.OpenRunRequest(run_id="b", config=pb.RunConfig(horizon=0)),
            "config.horizon",
            "run 'b': config.",
        ),
        (pb.OpenRunRequest(run_id="b", config=pb.RunConfig(optimizer=77)), "config.optimizer", "run 'b': "),  # type: ignore[arg-type]
        (pb.OpenRunRequest(run_id="b", mode=9), "mode", "run 'b': mode: "),  # type: ignore[arg-type]
        (pb.OpenRunRequest(run_id="b", resume_from=2**60), "resume_from", "run 'b': resume_from: "),
        (pb.OpenRunRequest(run_id="b", resume_from=2), "resume_from", "resume_from: run 'b' does not"),
        (pb.OpenRunRequest(run_id="b", config=pb.RunConfig(model="x")), "model", "run 'b': model: "),
        (pb.OpenRunRequest(run_id="b c"), "run_id", "is 'b c'"),
        (pb.OpenRunRequest(run_id="x" * 100_000), "run_id", "is 'xxx"),
        (pb.OpenRunRequest(run_id="a"), "requests", "requests: run 'a' is given twice"),
    ]
    async with service(tmp_path / "d", model_file) as (stub, _):
        for bad, field, says in wrong:
            batch = pb.BatchOpenRunsRequest(requests=[pb.OpenRunRequest(run_id="a"), bad])
            refusal = await refused(stub.BatchOpenRuns(batch, timeout=20))
            assert refusal.field == field, refusal
            assert says in refusal.message, refusal
        alone = pb.BatchOpenRunsRequest(requests=[wrong[0][0]])
        assert (await refused(stub.BatchOpenRuns(alone))).message.startswith("config.horizon: ")
        many = [pb.OpenRunRequest(run_id=f"run-{index}") for index in range(MAX_BATCH + 1)]
        for requests in ([], many):
            refusal = await refused(stub.BatchOpenRuns(pb.BatchOpenRunsRequest(requests=requests)))
            assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, "requests")
        assert not (await stub.ListRuns(pb.ListRunsRequest())).runs
        for run_ids, field in [
            ([], "run_ids"),
            (["a", "a"], "run_ids"),
            (["a b"], "run_id"),
            (["a"], "run_id"),
        ]:
            refusal = await refused(stub.BatchFinishRuns(pb.BatchFinishRunsRequest(run_ids=run_ids)))
            assert refusal.field == field
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "ERROR_REASON_RUN_NOT_FOUND")
