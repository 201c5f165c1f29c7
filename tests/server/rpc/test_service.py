"""The contract over real sockets: errors name what is wrong, and advice is the same by every call."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mlrs_core.config import RunConfig
from mlrs_core.models.checkpoint import read_model
from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from mlrs_server.domain.ledger import DIVERGED_AFTER
from tests.server.auth.tenants import Caller
from tests.server.support import (
    LOSSES,
    advised,
    channel,
    columns,
    create,
    drained,
    refused,
    replayed,
    service,
)
from tests.support.daemon import write_random_model

Code = grpc.StatusCode
TIMEOUT = 20
HUGE = "x" * 100_000
TOO_FAR = 2**53 + 1


@pytest.fixture
async def stub(tmp_path: Path, model_file: Path) -> AsyncIterator[AdvisorServiceStub]:
    """A daemon's stub."""
    async with service(tmp_path / "d", model_file) as (connected, _):
        yield connected


@asynccontextmanager
async def stream(stub: Any) -> AsyncIterator[Any]:
    """Open an advice stream, and end it in good order."""
    call = stub.StreamAdvice(timeout=TIMEOUT)
    try:
        yield call
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
    finally:
        call.cancel()


async def ask(call: Any, *entries: tuple[int, int, float]) -> pb.AdviceColumns:
    """Send a message of observations; return its advice."""
    await call.write(columns(*entries))
    answer = await call.read()
    assert answer.WhichOneof("kind") == "advice"
    return answer.advice  # type: ignore[no-any-return]


# ---------------------------------------------------------------------------- wrong requests


def opening(run_id: str = "a", *, mode: int = 0, resume_from: int | None = None, **config: Any) -> Any:
    """Return an OpenRun request."""
    return pb.OpenRunRequest(run_id=run_id, config=pb.RunConfig(**config), mode=mode, resume_from=resume_from)


WRONG: list[tuple[str, Any, Code, str, str, str]] = [
    # RPC, request, status, reason, field, in the message
    ("OpenRun", opening(""), Code.INVALID_ARGUMENT, "INVALID_FIELD", "run_id", "1 to 256 characters"),
    ("OpenRun", opening("a" * 257), Code.INVALID_ARGUMENT, "INVALID_FIELD", "run_id", "1 to 256"),
    ("OpenRun", opening("a b"), Code.INVALID_ARGUMENT, "INVALID_FIELD", "run_id", "letters, digits"),
    ("OpenRun", opening("é"), Code.INVALID_ARGUMENT, "INVALID_FIELD", "run_id", "letters, digits"),
    ("OpenRun", opening(horizon=0), Code.INVALID_ARGUMENT, "INVALID_FIELD", "config.horizon", "1 to"),
    ("OpenRun", opening(horizon=2**60), Code.INVALID_ARGUMENT, "INVALID_FIELD", "config.horizon", "1 to"),
    (
        "OpenRun",
        opening(num_classes=1),
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "config.num_classes",
        "2 to",
    ),
    *[
        (
            "OpenRun",
            opening(scale=x),
            Code.INVALID_ARGUMENT,
            "INVALID_FIELD",
            "config.scale",
            "finite and > 0",
        )
        for x in (0.0, -1.0, math.inf, math.nan)
    ],
    ("OpenRun", opening(snapshot=3), Code.INVALID_ARGUMENT, "INVALID_FIELD", "config.snapshot", "0 to 2"),
    ("OpenRun", opening(momentum=1.0), Code.INVALID_ARGUMENT, "INVALID_FIELD", "config.momentum", "[0, 1)"),
    (
        "OpenRun",
        opening(momentum=math.nan),
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "config.momentum",
        "[0, 1)",
    ),
    ("OpenRun", opening(min_lr=-1.0), Code.INVALID_ARGUMENT, "INVALID_FIELD", "config.min_lr", ">= 0"),
    ("OpenRun", opening(max_lr=0.0), Code.INVALID_ARGUMENT, "INVALID_FIELD", "config.max_lr", "> 0"),
    (
        "OpenRun",
        opening(min_lr=2.0, max_lr=1.0),
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "config.min_lr",
        "above max_lr",
    ),
    ("OpenRun", opening(optimizer=77), Code.INVALID_ARGUMENT, "INVALID_FIELD", "config.optimizer", "is 77"),
    ("OpenRun", opening(mode=9), Code.INVALID_ARGUMENT, "INVALID_FIELD", "mode", "is 9"),
    ("OpenRun", opening(model="nobody"), Code.NOT_FOUND, "MODEL_NOT_FOUND", "model", "this daemon knows"),
    ("OpenRun", opening(model=HUGE), Code.NOT_FOUND, "MODEL_NOT_FOUND", "model", "this daemon knows"),
    ("OpenRun", opening(mode=2), Code.NOT_FOUND, "RUN_NOT_FOUND", "run_id", "open it first"),
    ("OpenRun", opening("b", mode=1), Code.ALREADY_EXISTS, "RUN_EXISTS", "run_id", "resume it"),
    (
        "OpenRun",
        opening("b", horizon=9),
        Code.FAILED_PRECONDITION,
        "CONFIG_MISMATCH",
        "config.horizon",
        "no value",
    ),
    ("OpenRun", opening("done"), Code.FAILED_PRECONDITION, "RUN_FINISHED", "run_id", "resume_from"),
    (
        "OpenRun",
        opening("b", resume_from=2),
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "resume_from",
        "1 steps",
    ),
    ("OpenRun", opening(resume_from=1), Code.INVALID_ARGUMENT, "INVALID_FIELD", "resume_from", "not exist"),
    (
        "OpenRun",
        opening("b", resume_from=TOO_FAR),
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "resume_from",
        "at most",
    ),
    *[
        (rpc, getattr(pb, f"{rpc}Request")(run_id=run_id), code, reason, "run_id", says)
        for rpc in ("GetRun", "FinishRun", "DeleteRun", "Advise", "WatchRun")
        for run_id, code, reason, says in (
            ("nobody", Code.NOT_FOUND, "RUN_NOT_FOUND", "open it first"),
            ("", Code.INVALID_ARGUMENT, "INVALID_FIELD", "1 to 256"),
            (HUGE, Code.INVALID_ARGUMENT, "INVALID_FIELD", "1 to 256"),
            ("\U0001f600" * 3000, Code.INVALID_ARGUMENT, "INVALID_FIELD", "1 to 256"),
        )
    ],
    (
        "Advise",
        pb.AdviseRequest(run_id="b", step=2),
        Code.FAILED_PRECONDITION,
        "STEP_AHEAD",
        "step",
        "step 1 next",
    ),
    (
        "Advise",
        pb.AdviseRequest(run_id="b", step=0),
        Code.FAILED_PRECONDITION,
        "STALE_STEP",
        "step",
        "resume_from=0",
    ),
    (
        "Advise",
        pb.AdviseRequest(run_id="b", step=TOO_FAR),
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "step",
        "at most",
    ),
    (
        "Advise",
        pb.AdviseRequest(run_id="done", step=1),
        Code.FAILED_PRECONDITION,
        "RUN_FINISHED",
        "run_id",
        "is finished",
    ),
    (
        "WatchRun",
        pb.WatchRunRequest(run_id="b", from_step=TOO_FAR),
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "from_step",
        "at most",
    ),
    (
        "ListRuns",
        pb.ListRunsRequest(page_size=1001),
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "page_size",
        "at most 1000",
    ),
    (
        "ListRuns",
        pb.ListRunsRequest(order_by="loss"),
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "order_by",
        "'loss'",
    ),
    *[
        (
            "ListRuns",
            pb.ListRunsRequest(order_by="update_time desc", page_token=token),
            Code.INVALID_ARGUMENT,
            "INVALID_FIELD",
            "page_token",
            "from the beginning",
        )
        for token in (
            "run-1",
            "0x1p0 0x1p0 a",
            "update 0x1p0 nan a",
            "update 0x1p0 inf a",
            f"update 0x1p0 {'9' * 500} a",
            "update 0x1p0 0x1p0 !",
            "update x x a",
        )
    ],
    ("ListRuns", pb.ListRunsRequest(status=8), Code.INVALID_ARGUMENT, "INVALID_FIELD", "status", "is 8"),  # type: ignore[arg-type]
    (
        "ListModels",
        pb.ListModelsRequest(page_size=1001),
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "page_size",
        "at most 1000",
    ),
    (
        "GetModel",
        pb.GetModelRequest(model="nobody"),
        Code.NOT_FOUND,
        "MODEL_NOT_FOUND",
        "model",
        "mlrs models import",
    ),
    (
        "Adapt",
        pb.AdaptRequest(run_id="b"),
        Code.FAILED_PRECONDITION,
        "CONFIG_MISMATCH",
        "config.meta",
        "when the run is created",
    ),
]


async def test_every_wrong_request_is_named(stub: Any) -> None:
    """A wrong request has its status, its reason, its field, and a message that says what to do."""
    await create(stub, "b")
    await create(stub, "done")
    await advised(stub, "b", [1.0])
    await advised(stub, "done", [1.0])
    await stub.FinishRun(pb.FinishRunRequest(run_id="done"))
    for rpc, request, code, reason, field, says in WRONG:
        case = f"{rpc} {str(request)[:200]}"
        refusal = await refused(getattr(stub, rpc)(request, timeout=TIMEOUT))
        assert refusal.code == code, (case, refusal)
        assert refusal.reason == f"ERROR_REASON_{reason}", (case, refusal)
        assert refusal.field == field, (case, refusal)
        assert says in refusal.message, (case, refusal)
        assert len(refusal.message) <= 1000
    assert [run.run_id for run in (await stub.ListRuns(pb.ListRunsRequest())).runs] == ["b", "done"]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (columns(), "1 to 65536 entries"),
        (
            pb.StreamAdviceRequest(observations=pb.Observations(run_handles=[1], steps=[0, 1], losses=[1.0])),
            "equal length, are 1, 2 and 1",
        ),
        (
            pb.StreamAdviceRequest(observations=pb.Observations(run_handles=[1, 1], steps=[0], losses=[1.0])),
            "equal length",
        ),
        (
            pb.StreamAdviceRequest(observations=pb.Observations(steps=[0], losses=[1.0])),
            "equal length",
        ),
        (columns(*[(1, 0, 1.0)] * 65_537), "65537; split it"),
        (columns((1, TOO_FAR, 1.0)), "at most 9007199254740992"),
        (columns((1, 2**64 - 1, 1.0)), "at most 9007199254740992"),
    ],
    ids=["empty", "long", "short", "missing", "many", "far", "farthest"],
)
async def test_wrong_columns_end_the_stream(stub: Any, message: Any, says: str) -> None:
    """A message with invalid columns ends its stream, with their names; other streams continue."""
    handle = await create(stub, "a")
    async with stream(stub) as other:
        call = stub.StreamAdvice(timeout=TIMEOUT)
        await call.write(message)
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "ERROR_REASON_INVALID_FIELD")
        assert refusal.field == "steps"
        assert says in refusal.message
        assert not (await ask(other, (handle, 0, 1.0))).errors


async def test_an_oversize_message_is_refused(stub: Any) -> None:
    """100 MB in a message are RESOURCE_EXHAUSTED, unary and streamed; the daemon serves the others."""
    handle = await create(stub, "a")
    n = 100 * 2**20 // 8
    vast = pb.StreamAdviceRequest()
    vast.observations.losses.MergeFrom(np.zeros(n).tolist())
    async with stream(stub) as other:
        call = stub.StreamAdvice(timeout=60)
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # whichever way the call ends
            await call.write(vast)
            await drained(call)
        assert await call.code() == Code.RESOURCE_EXHAUSTED
        assert "max" in (await call.details())
        refusal = await refused(stub.GetRun(pb.GetRunRequest(run_id="x" * 100 * 2**20), timeout=60))
        assert refusal.code == Code.RESOURCE_EXHAUSTED
        assert not (await ask(other, (handle, 0, 1.0))).errors


async def test_an_unknown_method_is_refused(tmp_path: Path, model_file: Path) -> None:
    """An RPC of no contract is UNIMPLEMENTED."""
    async with (
        service(tmp_path / "d", model_file) as (_, address),
        grpc.aio.insecure_channel(address) as connection,
    ):
        refusal = await refused(
            connection.unary_unary("/mlrs.v1.AdvisorService/Nothing")(b"", timeout=TIMEOUT)
        )
        assert refusal.code == Code.UNIMPLEMENTED


async def test_bytes_that_are_no_message_are_refused(tmp_path: Path, model_file: Path) -> None:
    """Bytes that are not a message fail their own call; the daemon continues."""
    async with service(tmp_path / "d", model_file) as (stub, address):
        async with grpc.aio.insecure_channel(address) as connection:
            for method in ("GetRun", "OpenRun", "Advise"):
                call = connection.unary_unary(f"/mlrs.v1.AdvisorService/{method}")(
                    b"\xff" * 50, timeout=TIMEOUT
                )
                assert (await refused(call)).code in (Code.INTERNAL, Code.INVALID_ARGUMENT, Code.UNKNOWN)
        assert await create(stub, "a")


# ------------------------------------------------------------------------------------- advice


async def test_unary_and_streamed_advice_agree(stub: Any, tmp_path: Path) -> None:
    """By either call, and by the kernel alone, the learning rates are the same bit for bit."""
    config = {"horizon": 40, "num_classes": 10}
    handle = await create(stub, "streamed", **config)
    await create(stub, "unary", **config)
    losses = np.where(np.arange(30) % 9 == 4, np.inf, LOSSES[:30])
    unary = await advised(stub, "unary", losses)
    async with stream(stub) as call:
        streamed = []
        for step, loss in enumerate(losses):
            advice = await ask(call, (handle, step, loss))
            assert list(advice.reasons) == ([] if math.isfinite(loss) else [pb.ADVICE_REASON_HELD])
            streamed += advice.learning_rates
    policy = read_model(tmp_path / "small.safetensors")[0].policy()
    alone = replayed(policy, RunConfig(**config), losses)  # type: ignore[arg-type]
    assert unary == streamed == alone.tolist()


async def test_bad_losses_are_held_and_mark_the_run(stub: Any) -> None:
    """NaN and infinities hold the last LR and say so; a run that stays there is `diverged`."""
    await create(stub, "a", min_lr=1e-3)
    first = await stub.Advise(pb.AdviseRequest(run_id="a", step=0, loss=math.nan))
    assert (first.learning_rate, first.reason) == (1e-3, pb.ADVICE_REASON_HELD)
    fresh = await stub.Advise(pb.AdviseRequest(run_id="a", step=1, loss=2.0))
    for step in range(2, 2 + DIVERGED_AFTER):
        run = (await stub.GetRun(pb.GetRunRequest(run_id="a"))).run
        assert run.status == pb.RUN_STATUS_ACTIVE
        loss = (math.nan, math.inf, -math.inf)[step % 3]
        held = await stub.Advise(pb.AdviseRequest(run_id="a", step=step, loss=loss))
        assert (held.learning_rate, held.reason) == (fresh.learning_rate, pb.ADVICE_REASON_HELD)
    run = (await stub.GetRun(pb.GetRunRequest(run_id="a"))).run
    assert run.status == pb.RUN_STATUS_DIVERGED
    assert run.last_learning_rate == fresh.learning_rate
    await advised(stub, "a", [2.0], start=2 + DIVERGED_AFTER)
    assert (await stub.GetRun(pb.GetRunRequest(run_id="a"))).run.status == pb.RUN_STATUS_ACTIVE


@pytest.mark.parametrize("loss", [-1e300, -5.0, -1e-9, -0.0, 0.0, 5e-324, 1e300])
async def test_any_finite_loss_gives_a_sane_rate(stub: Any, loss: float) -> None:
    """Negative losses, zeros and huge ones give learning rates that are finite and positive."""
    await create(stub, "a", horizon=9)
    lrs = await advised(stub, "a", [loss] * 9)
    assert all(math.isfinite(lr) and lr > 0 for lr in lrs)


async def test_bad_entries_leave_their_neighbours_answered(stub: Any) -> None:
    """An entry's error has its index, code and reason; the entries around it are answered."""
    one, two = await create(stub, "a"), await create(stub, "b")
    async with stream(stub) as call:
        await ask(call, (one, 0, 1.0), (two, 0, 1.0))
        advice = await ask(call, (one, 1, 1.0), (12345, 0, 1.0), (two, 5, 1.0), (one, 0, 9.0), (two, 1, 1.0))
    assert [error.index for error in advice.errors] == [1, 2, 3]
    reasons = [error.reason for error in advice.errors]
    assert reasons == [pb.ERROR_REASON_STALE_HANDLE, pb.ERROR_REASON_STEP_AHEAD, pb.ERROR_REASON_STALE_STEP]
    assert [error.code for error in advice.errors] == [5, 9, 9]
    assert [error.next_step for error in advice.errors if error.HasField("next_step")] == [1, 2]
    assert all(error.message for error in advice.errors)
    assert [math.isnan(lr) for lr in advice.learning_rates] == [False, True, True, True, False]
    assert list(advice.reasons) == [1, 0, 0, 0, 1]


async def test_durable_steps_reach_the_client(tmp_path: Path, model_file: Path) -> None:
    """A reply says what would survive a crash, and that grows while the run continues."""
    async with service(tmp_path / "d", model_file, flush_interval_s=0.01) as (stub, _):
        handle = await create(stub, "a")
        async with stream(stub) as call, asyncio.timeout(TIMEOUT):
            step, durable = 0, -1
            while durable < 5:
                advice = await ask(call, (handle, step, 1.0))
                assert durable <= advice.durable_steps[0] <= step
                durable = advice.durable_steps[0]
                step += 1


async def test_two_streams_may_share_a_run(stub: Any) -> None:
    """Ranks that send the same observation get the same advice, whoever is first."""
    handle = await create(stub, "a")
    async with stream(stub) as one, stream(stub) as two:
        for step in range(10):
            answers = await asyncio.gather(*(ask(call, (handle, step, LOSSES[step])) for call in (one, two)))
            lrs = {lr for advice in answers for lr in advice.learning_rates}
            assert len(lrs) == 1
            assert not any(advice.errors for advice in answers)
    assert (await stub.GetRun(pb.GetRunRequest(run_id="a"))).run.next_step == 10


# ------------------------------------------------------------------------------ runs and models


async def test_a_run_reads_as_it_is(stub: Any) -> None:
    """A run's message has its config as given, its progress and its times."""
    given = {"horizon": 9, "scale": 0.25, "optimizer": pb.OPTIMIZER_ADAM, "momentum": 0.0, "min_lr": 0.0}
    created = await stub.OpenRun(pb.OpenRunRequest(run_id="a", config=pb.RunConfig(**given)))
    assert created.created
    run = created.run
    assert not run.HasField("last_loss")
    assert not run.config.HasField("num_classes")
    assert run.config.HasField("min_lr")
    assert run.config.model.startswith("small@")
    assert run.create_time == run.update_time
    lrs = await advised(stub, "a", [1.5, 2.5])
    run = (await stub.GetRun(pb.GetRunRequest(run_id="a"))).run
    assert (run.next_step, run.durable_step, run.last_loss, run.last_learning_rate) == (2, 1, 2.5, lrs[1])
    assert {name: getattr(run.config, name) for name in given} == given
    finished = (await stub.FinishRun(pb.FinishRunRequest(run_id="a"))).run
    assert (finished.status, finished.durable_step) == (pb.RUN_STATUS_FINISHED, 1)
    await stub.DeleteRun(pb.DeleteRunRequest(run_id="a"))
    assert not (await stub.ListRuns(pb.ListRunsRequest())).runs


async def test_a_watch_reads_what_was_advised(stub: Any) -> None:
    """WatchRun streams losses, rates and reasons, first of all an empty stretch."""
    await create(stub, "a")
    lrs = await advised(stub, "a", [1.0, math.nan, 2.0])
    messages = [message async for message in stub.WatchRun(pb.WatchRunRequest(run_id="a", from_step=1))]
    assert [(message.first_step, len(message.losses)) for message in messages] == [(1, 0), (1, 2)]
    assert list(messages[1].learning_rates) == lrs[1:]
    assert list(messages[1].reasons) == [pb.ADVICE_REASON_HELD, pb.ADVICE_REASON_FRESH]
    assert messages[1].run.next_step == 3


async def test_runs_come_in_pages(stub: Any) -> None:
    """Pages hold every run once, in order, and the last has no token; filters apply throughout."""
    names = [f"{kind}/{index:02}" for kind in "ab" for index in range(11)]
    for name in names:
        await create(stub, name)
    for size, prefix in [(1, ""), (5, ""), (11, "a/"), (0, ""), (22, ""), (3, "b/")]:
        got, token, pages = [], "", 0
        while pages == 0 or token:
            page = await stub.ListRuns(pb.ListRunsRequest(page_size=size, page_token=token, prefix=prefix))
            got += [run.run_id for run in page.runs]
            token, pages = page.next_page_token, pages + 1
        assert got == [name for name in names if name.startswith(prefix)]
        assert pages == math.ceil(len(got) / (size or 100))


async def test_runs_come_by_recency(stub: Any) -> None:
    """Pages by recency begin with the run observed last, and a run that moves meanwhile is not missed."""
    names = [f"run-{index}" for index in range(7)]
    for name in names:
        await create(stub, name)
    for name in ("run-2", "run-5"):
        await advised(stub, name, [1.0])
        await stub.GetRun(pb.GetRunRequest(run_id=name))  # so that it is stored before the next
    newest = ["run-5", "run-2", *(f"run-{index}" for index in (6, 4, 3, 1, 0))]

    async def page_after(token: str, size: int = 2) -> Any:
        return await stub.ListRuns(
            pb.ListRunsRequest(page_size=size, page_token=token, order_by=" update_time  desc ")
        )

    for size in (1, 3, 7, 100):
        got, token = list[str](), ""
        while not got or token:
            page = await page_after(token, size)
            got += [run.run_id for run in page.runs]
            token = page.next_page_token
        assert got == newest
    first = await page_after("")
    await advised(stub, "run-0", [1.0])
    got, token = [run.run_id for run in first.runs], first.next_page_token
    while token:
        page = await page_after(token)
        got += [run.run_id for run in page.runs]
        token = page.next_page_token
    assert got == [*newest[:-1], "run-0"]
    by_id = await stub.ListRuns(pb.ListRunsRequest(page_size=2, order_by="run_id"))
    assert [run.run_id for run in by_id.runs] == names[:2]
    by_id = await stub.ListRuns(pb.ListRunsRequest(page_size=9, page_token=by_id.next_page_token))
    assert [run.run_id for run in by_id.runs] == names[2:]


async def test_models_come_in_pages(tmp_path: Path, model_file: Path) -> None:
    """Models are listed once each, in order; one is read by any of its names."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        for index in range(4):
            model = write_random_model(tmp_path / "m.safetensors", seed=index + 1)
            await Caller(stub, None).import_model(model.read_bytes(), f"m{index}")
        everything = [model.ref for model in (await stub.ListModels(pb.ListModelsRequest())).models]
        assert everything == sorted(everything)
        assert len(everything) >= 5
        got, token = list[str](), ""
        while not got or token:
            page = await stub.ListModels(pb.ListModelsRequest(page_size=2, page_token=token))
            got += [model.ref for model in page.models]
            token = page.next_page_token
        assert got == everything
        for name in ("small", "default", ""):
            model = (await stub.GetModel(pb.GetModelRequest(model=name))).model
            assert (model.name, model.architecture, model.snapshots) == ("small", "paper", 3)
            assert list(model.aliases) == ["default"]
            assert '"hidden_size": 8' in model.architecture_json


async def test_many_clients_at_once(tmp_path: Path, model_file: Path) -> None:
    """Streams of many clients share passes, and each run has the LRs that it has alone."""
    async with service(tmp_path / "d", model_file, flush_interval_s=0.01) as (_, address):

        async def train(index: int) -> list[float]:
            async with channel(address) as stub:
                handle = await create(stub, f"run-{index}")
                lrs: list[float] = []
                async with stream(stub) as call:
                    for step in range(20):
                        lrs += (await ask(call, (handle, step, LOSSES[step + index]))).learning_rates
                return lrs

        everyone = await asyncio.gather(*(train(index) for index in range(16)))
    policy = read_model(model_file)[0].policy()
    for index, lrs in enumerate(everyone):
        assert lrs == replayed(policy, RunConfig(), LOSSES[index : index + 20]).tolist()
