"""Meta mode over the wire: updates in streams and calls, gradients in chunks, and records of both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import StatusCode as Code

from mlrs_core.config import AdaptScope, MetaConfig, RunConfig
from mlrs_proto import v1 as pb
from mlrs_server.auth.limits import Limits, Usage
from mlrs_server.auth.principal import Caller, Principal, set_caller
from mlrs_server.auth.roles import Role
from mlrs_server.meta.apply import Adaptation
from mlrs_server.rpc.meta_service import AT_ONCE, MetaService
from mlrs_server.telemetry.counts import AdviceCounts
from tests.server.meta.support import learning
from tests.server.support import LOSSES, advised, columns, create, harness, refused, service

TIMEOUT = 20
META = pb.Meta(learning_rate=0.01)


def update(handle: int, step: int, alignment: float, **more: float) -> pb.StreamAdviceRequest:
    """Return a message with one meta update."""
    return pb.StreamAdviceRequest(
        meta_updates=pb.MetaUpdates(
            updates=[pb.MetaUpdate(run_handle=handle, step=step, alignment=alignment, **more)]
        )
    )


async def exchange(call: Any, message: pb.StreamAdviceRequest) -> pb.StreamAdviceResponse:
    """Send a message and return its answer."""
    await call.write(message)
    response: pb.StreamAdviceResponse = await call.read()
    return response


async def test_a_stream_keeps_observations_and_updates_in_order(tmp_path: Path, model_file: Path) -> None:
    """Observations and updates of a stream are applied in order, as by single calls."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        streamed = await create(stub, "streamed", horizon=100, meta=META)
        await create(stub, "called", horizon=100, meta=META)
        call = stub.StreamAdvice(timeout=TIMEOUT)
        for step, loss in enumerate(LOSSES[:30].tolist()):
            await call.write(columns((streamed, step, loss)))
            if step % 2:
                await call.write(update(streamed, step, -1.0 - step))
        await call.done_writing()
        answers = [answer async for answer in call]
        lrs, results = [], []
        for step, loss in enumerate(LOSSES[:30].tolist()):
            lrs += await advised(stub, "called", [loss], start=step)
            if step % 2:
                request = pb.AdaptRequest(run_id="called", step=step, alignment=-1.0 - step)
                results.append((await stub.Adapt(request, timeout=TIMEOUT)).result)
        assert [a.advice.learning_rates[0] for a in answers if a.HasField("advice")] == lrs
        assert [a.meta_results.results[0] for a in answers if a.HasField("meta_results")] == results
        assert len({result.learning_rate for result in results}) == 15


async def test_a_wrong_update_fails_alone(tmp_path: Path, model_file: Path) -> None:
    """In a message of several updates an invalid one is an error by its index; the others are applied."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        one, other, frozen = [
            await create(stub, name, **({} if name == "frozen" else {"meta": META}))
            for name in ("one", "other", "frozen")
        ]
        call = stub.StreamAdvice(timeout=TIMEOUT)
        await exchange(call, columns((one, 0, 2.0), (other, 0, 2.0), (frozen, 0, 2.0)))
        message = pb.StreamAdviceRequest()
        for handle, alignment in ((one, 1.0), (frozen, 1.0), (other, float("nan")), (7, 1.0), (other, 2.0)):
            message.meta_updates.updates.add(run_handle=handle, step=0, alignment=alignment)
        answer = (await exchange(call, message)).meta_results
        assert [bool(result.outcome) for result in answer.results] == [True, False, False, False, True]
        assert [(error.index, error.reason) for error in answer.errors] == [
            (1, pb.ERROR_REASON_CONFIG_MISMATCH),
            (2, pb.ERROR_REASON_INVALID_FIELD),
            (3, pb.ERROR_REASON_STALE_HANDLE),
        ]
        assert not (await exchange(call, columns((one, 1, 1.9)))).advice.errors


async def test_a_long_message_of_updates_yields_to_other_tasks(tmp_path: Path, model_file: Path) -> None:
    """Between the updates of a message, other tasks of the event loop run."""
    async with harness(tmp_path, model_file) as there:
        adaptation = Adaptation(there.live, there.stored)
        served = MetaService(there.opener, adaptation, AdviceCounts())
        runs = [await learning(there, f"run-{number}") for number in range(40)]
        message = pb.MetaUpdates()
        for run in runs:
            await run.go([2.0])
            message.updates.add(run_handle=run.opened.handle, step=0, alignment=1.0)
        set_caller(Caller(Principal("", Role.ADAPT), Usage("", Limits())))
        applying = asyncio.create_task(served.adapt_all(message))
        yields = 0
        while not applying.done():
            await asyncio.sleep(0)
            yields += 1
        assert [result.updates for result in applying.result().meta_results.results] == [1] * 40
        assert yields >= 40 // AT_ONCE


async def test_too_many_updates_fail_the_stream(tmp_path: Path, model_file: Path) -> None:
    """A message of more updates than one may have ends its stream, and names the field."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        call = stub.StreamAdvice(timeout=TIMEOUT)
        updates = pb.MetaUpdates(updates=[pb.MetaUpdate()] * 1025)
        await call.write(pb.StreamAdviceRequest(meta_updates=updates))
        refusal = await refused(call)
        assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, "meta_updates")
        assert "at most 1024" in refusal.message


async def test_updates_can_be_read(tmp_path: Path, model_file: Path) -> None:
    """GetRun has the number of updates and the newest one; WatchRun has each; runs without meta have none."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        handle = await create(stub, "run", horizon=100, meta=META)
        await create(stub, "frozen")
        call = stub.StreamAdvice(timeout=TIMEOUT)
        for step, loss in enumerate(LOSSES[:9].tolist()):
            await exchange(call, columns((handle, step, loss)))
            if step in {2, 5, 8}:
                await exchange(call, update(handle, step, 10.0**step, validation_loss=step / 2))
        run = (await stub.GetRun(pb.GetRunRequest(run_id="run"), timeout=TIMEOUT)).run
        assert (run.meta.updates, run.meta.last_step, run.meta.last_alignment) == (3, 8, 1e8)
        assert run.meta.last_validation_loss == 4.0
        assert run.config.meta.every == 5
        record = [
            update
            async for message in stub.WatchRun(pb.WatchRunRequest(run_id="run"), timeout=TIMEOUT)
            for update in message.updates
        ]
        assert [(one.step, one.alignment, one.validation_loss) for one in record] == [
            (2, 1e2, 1.0),
            (5, 1e5, 2.5),
            (8, 1e8, 4.0),
        ]
        assert run.last_learning_rate == record[-1].learning_rate
        frozen = (await stub.GetRun(pb.GetRunRequest(run_id="frozen"), timeout=TIMEOUT)).run
        assert not frozen.HasField("meta")


async def test_finished_and_listed_runs_have_their_newest_updates(tmp_path: Path, model_file: Path) -> None:
    """FinishRun, BatchFinishRuns and ListRuns have the same meta status as GetRun."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        names = ["one", "two", "three", "none"]
        handles = [await create(stub, name, horizon=100, meta=META) for name in names]
        await create(stub, "frozen")
        call = stub.StreamAdvice(timeout=TIMEOUT)
        for step, loss in enumerate(LOSSES[:4].tolist()):
            for count, handle in enumerate(handles[:3]):
                await exchange(call, columns((handle, step, loss)))
                if step > count:
                    await exchange(call, update(handle, step, 10.0 * count + step, validation_loss=count))
        (one,) = [(await stub.FinishRun(pb.FinishRunRequest(run_id="one"), timeout=TIMEOUT)).run]
        request = pb.BatchFinishRunsRequest(run_ids=[*names, "frozen"])
        runs = (await stub.BatchFinishRuns(request, timeout=TIMEOUT)).runs
        assert [run.run_id for run in runs] == [*names, "frozen"]
        assert [run.meta.last_alignment for run in runs[:3]] == [3.0, 13.0, 23.0]
        assert [run.meta.last_validation_loss for run in runs[:3]] == [0.0, 1.0, 2.0]
        assert not runs[3].meta.HasField("last_step")
        assert not runs[4].HasField("meta")
        assert one.meta == runs[0].meta
        listed = (await stub.ListRuns(pb.ListRunsRequest(), timeout=TIMEOUT)).runs
        assert sorted((run.run_id, run.meta.SerializeToString()) for run in listed) == sorted(
            (run.run_id, run.meta.SerializeToString()) for run in runs
        )
        for run in runs:
            read = (await stub.GetRun(pb.GetRunRequest(run_id=run.run_id), timeout=TIMEOUT)).run
            assert read.meta == run.meta


async def test_a_follower_gets_updates(tmp_path: Path, model_file: Path) -> None:
    """Who follows a run gets its updates as they come, each once."""
    async with service(tmp_path / "d", model_file, flush_interval_s=0.02) as (stub, _):
        handle = await create(stub, "run", horizon=100, meta=META)
        watch = stub.WatchRun(pb.WatchRunRequest(run_id="run", follow=True), timeout=TIMEOUT)
        call = stub.StreamAdvice(timeout=TIMEOUT)
        for step, loss in enumerate(LOSSES[:6].tolist()):
            await exchange(call, columns((handle, step, loss)))
            await exchange(call, update(handle, step, 1.0 + step))
        await stub.FinishRun(pb.FinishRunRequest(run_id="run"), timeout=TIMEOUT)
        received = [update.step async for message in watch for update in message.updates]
        assert received == list(range(6))


def gradients(
    header: pb.AdaptGradientsHeader, left: np.ndarray, right: np.ndarray, count: int, piece: int = 100
) -> Iterator[pb.AdaptGradientsRequest]:
    """Return the messages that send two vectors, in chunks of so many elements."""
    header.element_count = count
    yield pb.AdaptGradientsRequest(header=header)
    for start in range(0, len(left), piece):
        both = [vector[start : start + piece].astype("<f4").tobytes() for vector in (left, right)]
        chunk = pb.GradientChunk(
            data_type=pb.DATA_TYPE_FLOAT32, validation_gradient=both[0], direction=both[1]
        )
        yield pb.AdaptGradientsRequest(chunk=chunk)


async def test_all_ways_in_are_the_same(tmp_path: Path, model_file: Path) -> None:
    """The alignment and both gradients give the same update to 1e-5."""
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 1000))
    whole = float(left.astype("f4").astype("f8") @ right.astype("f4").astype("f8"))
    async with service(tmp_path / "d", model_file) as (stub, _):
        for name in ("whole", "gradients"):
            await create(stub, name, horizon=100, meta=META)
            await advised(stub, name, [2.0, 1.9])
        request = pb.AdaptRequest(run_id="whole", step=1, alignment=whole)
        expected = (await stub.Adapt(request, timeout=TIMEOUT)).result
        header = pb.AdaptGradientsHeader(run_id="gradients", step=1)
        sent = await stub.AdaptGradients(gradients(header, left, right, 1000), timeout=TIMEOUT)
        assert sent.alignment == pytest.approx(whole, rel=1e-12)
        assert sent.result.log_change == pytest.approx(expected.log_change, rel=1e-5)
        assert sent.result.learning_rate == pytest.approx(expected.learning_rate, rel=1e-5)
        assert expected.log_change != 0


async def test_gradients_that_break_off_change_nothing(tmp_path: Path, model_file: Path) -> None:
    """A stream that is cut off, ends early, is too long or is malformed leaves the run as it was."""
    ones = np.ones(500)
    async with service(tmp_path / "d", model_file) as (stub, _):
        await create(stub, "run", horizon=100, meta=META)
        await advised(stub, "run", [2.0])
        header = pb.AdaptGradientsHeader(run_id="run", step=0)
        for count in (499, 501):
            refusal = await refused(
                stub.AdaptGradients(gradients(header, ones, ones, count), timeout=TIMEOUT)
            )
            assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, "element_count")
        for messages, field in (
            ([], "header"),
            ([pb.AdaptGradientsRequest(chunk=pb.GradientChunk())], "header"),
            ([pb.AdaptGradientsRequest(header=header)] * 2, "chunk"),
            ([pb.AdaptGradientsRequest(header=header), pb.AdaptGradientsRequest(chunk={})], "data_type"),
        ):
            refusal = await refused(stub.AdaptGradients(iter(messages), timeout=TIMEOUT))
            assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, field)
        cut = stub.AdaptGradients(timeout=TIMEOUT)
        for message in list(gradients(header, ones, ones, 500))[:4]:
            await cut.write(message)
        cut.cancel()
        bad = np.array([np.inf, 1.0])
        refusal = await refused(stub.AdaptGradients(gradients(header, bad, bad, 2), timeout=TIMEOUT))
        assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, "alignment")
        run = (await stub.GetRun(pb.GetRunRequest(run_id="run"), timeout=TIMEOUT)).run
        assert run.meta.updates == 0


async def test_a_run_is_in_meta_mode_from_its_creation(tmp_path: Path, model_file: Path) -> None:
    """Meta mode cannot be asked for later or otherwise; a schedule has none; each error names the field."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        await create(stub, "frozen")
        await create(stub, "learning", meta=META)
        await create(stub, "learning", meta=pb.Meta())
        for run_id, config, code, field in (
            ("frozen", {"meta": META}, Code.FAILED_PRECONDITION, "config.meta"),
            ("learning", {"meta": {"every": 3}}, Code.FAILED_PRECONDITION, "config.meta.every"),
            ("new", {"meta": {"every": 0}}, Code.INVALID_ARGUMENT, "config.meta.every"),
            ("new", {"meta": {"learning_rate": -1.0}}, Code.INVALID_ARGUMENT, "config.meta.learning_rate"),
            ("new", {"meta": {"order": 9}}, Code.INVALID_ARGUMENT, "config.meta.order"),
            (
                "new",
                {"meta": {}, "schedule": {"constant": {}}},
                Code.INVALID_ARGUMENT,
                "config.meta",
            ),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await create(stub, run_id, **config)
            assert caught.value.code() == code
            assert dict(caught.value.trailing_metadata() or ())["mlrs-field"] == field


async def test_a_follower_that_comes_back_gets_the_last_update(tmp_path: Path, model_file: Path) -> None:
    """A record read from the next step on begins with the update of the step before: it may be news."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        handle = await create(stub, "run", horizon=100, meta=META)
        call = stub.StreamAdvice(timeout=TIMEOUT)
        for step, loss in enumerate(LOSSES[:5].tolist()):
            await exchange(call, columns((handle, step, loss)))
            await exchange(call, update(handle, step, 1.0))
        watch = stub.WatchRun(pb.WatchRunRequest(run_id="run", from_step=5), timeout=TIMEOUT)
        assert [one.step async for message in watch for one in message.updates] == [4]


async def test_an_update_over_the_queue_limit_ends_the_stream(tmp_path: Path, model_file: Path) -> None:
    """What follows an update on its stream is not taken without it: the call fails, to be made again."""
    async with service(tmp_path / "d", model_file, max_unflushed=1, flush_interval_s=5.0) as (stub, _):
        handle = await create(stub, "run", horizon=100, meta=META)
        call = stub.StreamAdvice(timeout=TIMEOUT)
        await exchange(call, columns((handle, 0, 2.0)))
        await call.write(update(handle, 0, 1.0))
        assert (await refused(call)).reason == "ERROR_REASON_QUEUE_FULL"


async def test_ranks_get_no_learning_rate_too_late(tmp_path: Path, model_file: Path) -> None:
    """With ranks, updates come after the step by default."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        await create(stub, "after", meta={}, ranks={})
        run = (await stub.GetRun(pb.GetRunRequest(run_id="after"), timeout=TIMEOUT)).run
        assert run.config.meta.order == pb.META_ORDER_AFTER_STEP
        await create(stub, "before", meta={"order": pb.META_ORDER_BEFORE_STEP}, ranks={})
        run = (await stub.GetRun(pb.GetRunRequest(run_id="before"), timeout=TIMEOUT)).run
        assert run.config.meta.order == pb.META_ORDER_BEFORE_STEP


async def test_settings_that_change_no_update_share_a_group(tmp_path: Path, model_file: Path) -> None:
    """Runs that differ in when they learn, and for whom, take one group of the few that there are."""
    async with harness(tmp_path, model_file) as there:
        for every in range(1, 5):
            for scope in AdaptScope:
                config = RunConfig(meta=MetaConfig(every=every, scope=scope))
                await there.open(f"{every}-{scope}", config)
        assert len(there.live.groups) == 1
        await there.open("other", RunConfig(meta=MetaConfig(learning_rate=0.5)))
        assert len(there.live.groups) == 2
