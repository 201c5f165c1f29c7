"""Processes that open runs and keep streams open, over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from mlrs_server.runs import feeders
from tests.server.auth.tenants import tenants
from tests.server.support import Refusal, advised, columns, refusal_of, refused, service

TIMEOUT = 60
FIRST, SECOND = "first-process", "second-process"


@pytest.fixture
async def stub(tmp_path: Path, model_file: Path) -> AsyncIterator[AdvisorServiceStub]:
    """A daemon's stub."""
    async with service(tmp_path / "d", model_file) as (connected, _):
        yield connected


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the daemon wait for no stream of a process that has opened a run."""
    monkeypatch.setattr(feeders, "STREAM_WITHIN_S", 0.0)


async def opened(stub: Any, feeder: str, mode: int = pb.OPEN_MODE_UNSPECIFIED, **more: Any) -> Any:
    """Open the run "a" as a process."""
    return await stub.OpenRun(asking(feeder, mode, **more), timeout=TIMEOUT)


def asking(feeder: str, mode: int = pb.OPEN_MODE_UNSPECIFIED, **more: Any) -> Any:
    """Return the request of a process that opens the run "a"."""
    return pb.OpenRunRequest(run_id="a", feeder=feeder, mode=mode, **more)  # type: ignore[arg-type]


@asynccontextmanager
async def streaming(
    stub: Any, feeder: str | None, *more: tuple[str, str], ranks: int | None = None
) -> AsyncIterator[Any]:
    """Have a process's stream open, known to the daemon; yield what asks it (handle, step, loss)."""
    metadata = [*more] if feeder is None else [*more, ("mlrs-feeder", feeder)]
    call = stub.StreamAdvice(timeout=TIMEOUT, metadata=metadata)

    async def ask(*entries: tuple[int, int, float]) -> Any:
        message = columns(*entries)
        if ranks is not None:
            message.observations.rank_columns.ranks.extend([ranks] * len(entries))
        await call.write(message)
        return (await call.read()).advice

    try:
        stale = await ask((1, 0, 1.0))
        assert stale.errors
        yield ask
    finally:
        call.cancel()


def is_stale(advice: Any) -> bool:
    """Return whether the only entry of a message was of a stale handle."""
    return [error.reason for error in advice.errors] == [pb.ERROR_REASON_STALE_HANDLE]


async def joined(stub: Any, feeder: str) -> Any:
    """Join the run "a" again, once the daemon has heard that the other process is gone."""
    while True:
        try:
            return await opened(stub, feeder, pb.OPEN_MODE_RESUME)
        except grpc.aio.AioRpcError as error:
            assert refusal_of(error).reason == "ERROR_REASON_OTHER_FEEDER"  # noqa: PT017  # until then


async def test_two_live_processes_are_both_told(stub: Any) -> None:
    """Of two scripts with one id, the second is told that it took the run over, the first that it lost it."""
    first = await opened(stub, FIRST, pb.OPEN_MODE_BEGIN)
    assert (first.created, first.took_over) == (True, False)
    async with streaming(stub, FIRST) as of_first, streaming(stub, SECOND) as of_second:
        (lr,) = (await of_first((first.run_handle, 0, 1.0))).learning_rates
        second = await opened(stub, SECOND)
        assert (second.created, second.took_over) == (False, True)
        assert second.run.next_step == 1
        assert is_stale(await of_first((first.run_handle, 1, 1.0)))
        refusal = await refused(stub.OpenRun(asking(FIRST, pb.OPEN_MODE_RESUME), timeout=TIMEOUT))
        assert refusal == Refusal(
            grpc.StatusCode.FAILED_PRECONDITION, refusal.message, "ERROR_REASON_OTHER_FEEDER", "run_id"
        )
        assert "another process has opened run 'a' since" in refusal.message
        assert list((await of_second((second.run_handle, 0, 1.0))).learning_rates) == [lr]
        assert not (await of_second((second.run_handle, 1, 1.0))).errors


async def test_a_process_that_died_keeps_nobody_out(stub: Any) -> None:
    """Once its stream has ended, another joins the run again as if it had always been its own."""
    first = await opened(stub, FIRST, pb.OPEN_MODE_BEGIN)
    async with streaming(stub, FIRST) as of_first:
        await of_first((first.run_handle, 0, 1.0))
        refusal = await refused(stub.OpenRun(asking(SECOND, pb.OPEN_MODE_RESUME), timeout=TIMEOUT))
        assert refusal.reason == "ERROR_REASON_OTHER_FEEDER"
    second = await joined(stub, SECOND)
    assert (second.run.next_step, second.took_over) == (1, False)


async def test_a_process_may_have_several_streams(stub: Any) -> None:
    """It is connected until the last of them has ended."""
    await opened(stub, FIRST)
    async with streaming(stub, FIRST):
        async with streaming(stub, FIRST):
            pass
        async with streaming(stub, FIRST):
            await opened(stub, FIRST)
        refusal = await refused(stub.OpenRun(asking(SECOND, pb.OPEN_MODE_RESUME), timeout=TIMEOUT))
        assert refusal.reason == "ERROR_REASON_OTHER_FEEDER"
    assert not (await joined(stub, SECOND)).took_over


async def test_who_says_no_feeder_shares_the_run(stub: Any) -> None:
    """Unary calls, and streams and openings without a feeder, go on beside a process that has one."""
    mine = await opened(stub, FIRST)
    async with streaming(stub, FIRST) as of_first, streaming(stub, None) as of_nobody:
        for mode in (pb.OPEN_MODE_UNSPECIFIED, pb.OPEN_MODE_RESUME):
            assert (await opened(stub, "", mode)).run_handle == mine.run_handle
        assert not (await of_first((mine.run_handle, 0, 1.0))).errors
        assert not (await of_nobody((mine.run_handle, 1, 1.0))).errors
        assert len(await advised(stub, "a", [1.0], start=2)) == 1
        assert not (await of_first((mine.run_handle, 3, 1.0))).errors


async def test_ranks_open_a_run_beside_each_other(stub: Any) -> None:
    """Each rank opens the run and has a stream of its own, in any mode that finds it before step 0."""
    config = pb.RunConfig(ranks=pb.Ranks())
    first = await opened(stub, "", pb.OPEN_MODE_BEGIN, config=config, world_size=2)
    async with streaming(stub, None, ranks=0) as of_first, streaming(stub, None, ranks=1) as of_second:
        for mode in (pb.OPEN_MODE_BEGIN, pb.OPEN_MODE_UNSPECIFIED, pb.OPEN_MODE_RESUME):
            second = await opened(stub, "", mode, config=config)
            assert (second.run_handle, second.took_over) == (first.run_handle, False)
        answers = await asyncio.gather(
            of_first((first.run_handle, 0, 1.0)), of_second((first.run_handle, 0, 2.0))
        )
    assert len({tuple(answer.learning_rates) for answer in answers}) == 1


async def test_feeders_are_of_their_tenants(tmp_path: Path, model_file: Path) -> None:
    """A stream of another tenant that calls itself the same is another process's."""
    async with tenants(tmp_path / "d", model_file) as running:
        mine, theirs = running.caller("mine"), running.caller("theirs")
        await running.known(mine, theirs)
        await mine.call("OpenRun", asking(FIRST))
        async with streaming(running.stub, FIRST, *theirs.metadata):
            (again,) = await mine.call("OpenRun", asking(SECOND, pb.OPEN_MODE_RESUME))
            assert not again.took_over
        async with streaming(running.stub, SECOND, *mine.metadata):
            refusal = await mine.refused("OpenRun", asking(FIRST, pb.OPEN_MODE_RESUME))
            assert refusal.reason == "ERROR_REASON_OTHER_FEEDER"


@pytest.mark.parametrize("feeder", ["a b", "a" * 65, "!"])
async def test_a_malformed_feeder_is_refused(stub: Any, feeder: str) -> None:
    """An id that no client makes ends a stream, and an opening, by the name of the field."""
    call = stub.StreamAdvice(timeout=TIMEOUT, metadata=[("mlrs-feeder", feeder)])
    refusal = await refused(call)
    assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, "mlrs-feeder")
    refusal = await refused(stub.OpenRun(asking(feeder), timeout=TIMEOUT))
    assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, "feeder")


async def test_a_run_tells_its_task(stub: Any) -> None:
    """Every call that returns a run returns what is trained; the default is the run's id."""
    told = [(await opened(stub, FIRST, task="resnet18-cifar10")).run.task]
    await advised(stub, "a", [1.0])
    told.append((await stub.GetRun(pb.GetRunRequest(run_id="a"), timeout=TIMEOUT)).run.task)
    told += [run.task for run in (await stub.ListRuns(pb.ListRunsRequest(), timeout=TIMEOUT)).runs]
    told += [part.run.task async for part in stub.WatchRun(pb.WatchRunRequest(run_id="a"), timeout=TIMEOUT)]
    told.append((await stub.FinishRun(pb.FinishRunRequest(run_id="a"), timeout=TIMEOUT)).run.task)
    assert set(told) == {"resnet18-cifar10"}
    assert len(told) >= 5
    other = await stub.OpenRun(pb.OpenRunRequest(run_id="b"), timeout=TIMEOUT)
    assert other.run.task == "b"
