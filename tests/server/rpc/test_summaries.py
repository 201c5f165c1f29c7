"""Records in buckets and samples, and the events of runs, over the wire."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlrs_proto import v1 as pb
from tests.server.support import LOSSES, Refusal, advised, columns, create, refused, service

TIMEOUT = 20


@pytest.fixture
async def stub(tmp_path: Path, model_file: Path) -> AsyncIterator[Any]:
    """A daemon's stub."""
    async with service(tmp_path / "d", model_file) as (connected, _):
        yield connected


async def summary(stub: Any, **request: Any) -> pb.SummarizeRecordResponse:
    """Return a summary of the run "a"."""
    message = pb.SummarizeRecordRequest(run_id="a", **request)
    answer: pb.SummarizeRecordResponse = await stub.SummarizeRecord(message, timeout=TIMEOUT)
    return answer


async def stored(stub: Any, run_id: str = "a") -> pb.Run:
    """Have all of a run stored, and return the run."""
    answer = await stub.GetRun(pb.GetRunRequest(run_id=run_id), timeout=TIMEOUT)
    run: pb.Run = answer.run
    return run


async def test_a_record_comes_in_buckets(stub: Any) -> None:
    """Each column says of each bucket what the record says of its steps, finite losses or not."""
    await create(stub, "a", schedule=pb.Schedule(base_lr=0.5, constant=pb.Schedule.Constant()), rescue=True)
    losses = [1.0, 3.0, math.nan, math.nan, 2.0, 4.0, math.inf, math.nan, 0.5, 0.5]
    lrs = []
    for step, loss in enumerate(losses):
        request = pb.AdviseRequest(run_id="a", step=step, loss=loss, restored=step == 4)
        if step in (1, 5, 6, 7):
            request.signals.grad_norm2 = step
        if step in (1, 3, 9):
            request.validation.step, request.validation.loss = step - 1, 10.0 + step
        lrs.append((await stub.Advise(request, timeout=TIMEOUT)).learning_rate)
    assert (await summary(stub)).end_step in range(11)  # what is durable, however much that is by now
    run = await stored(stub)
    answer = await summary(stub, max_buckets=5)
    assert answer.run == run
    assert (answer.first_step, answer.steps_per_bucket, answer.end_step) == (0, 2, 10)
    nan = math.nan
    assert list(answer.min_losses) == pytest.approx([1.0, nan, 2.0, nan, 0.5], nan_ok=True)
    assert list(answer.max_losses) == pytest.approx([3.0, nan, 4.0, nan, 0.5], nan_ok=True)
    assert list(answer.mean_losses) == pytest.approx([2.0, nan, 3.0, nan, 0.5], nan_ok=True)
    pairs = [lrs[at : at + 2] for at in range(0, 10, 2)]
    assert list(answer.min_learning_rates) == [min(pair) for pair in pairs]
    assert list(answer.max_learning_rates) == [max(pair) for pair in pairs]
    assert list(answer.mean_learning_rates) == pytest.approx([sum(pair) / 2 for pair in pairs])
    assert list(answer.held) == [0, 2, 0, 2, 0]
    assert list(answer.signals.entries) == [0, 2, 3]
    assert list(answer.signals.grad_norm2) == [1.0, 5.0, 6.5]
    validations = answer.validations
    told = list(zip(validations.entries, validations.steps, validations.losses, strict=True))
    assert told == [(0, 0, 11.0), (1, 2, 13.0), (4, 8, 19.0)]
    assert list(answer.restored) == [4]
    assert list(answer.restores) == [step for step in (3, 7) if step in answer.restores] != []
    assert not answer.has_more


async def test_a_summary_goes_on_by_its_token(stub: Any) -> None:
    """The token of an answer leads to what is new since, in buckets of the same size."""
    await create(stub, "a")
    await advised(stub, "a", LOSSES[:20])
    await stored(stub)
    first = await summary(stub, from_step=3, to_step=30, max_buckets=8)
    assert (first.first_step, first.steps_per_bucket, first.end_step) == (0, 4, 20)
    await advised(stub, "a", LOSSES[20:40], start=20)
    await stored(stub)
    rest = await summary(stub, page_token=first.next_page_token)
    assert (rest.first_step, rest.steps_per_bucket, rest.end_step) == (16, 4, 30)
    assert list(rest.max_losses[:3]) == [max(LOSSES[at : at + 4]) for at in (16, 20, 24)]
    await stub.OpenRun(pb.OpenRunRequest(run_id="a", resume_from=9), timeout=TIMEOUT)
    back = await summary(stub, page_token=rest.next_page_token)
    assert (back.first_step, back.end_step, len(back.held)) == (8, 9, 1)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"max_buckets": 4097}, "max_buckets"),
        ({"from_step": 2**60}, "from_step"),
        ({"to_step": 2**60}, "to_step"),
        ({"from_step": 5, "to_step": 5}, "to_step"),
    ],
)
async def test_a_wrong_field_is_named(stub: Any, request_: dict[str, int], field: str) -> None:
    """A field out of range is refused by its name."""
    refusal = await wrong(stub, **request_)
    assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def wrong(stub: Any, **request: Any) -> Refusal:
    """Return how a call is refused."""
    return await refused(stub.SummarizeRecord(pb.SummarizeRecordRequest(run_id="a", **request), timeout=9))


async def test_a_malformed_token_is_refused(stub: Any) -> None:
    """No token that the daemon has not made is read: the field is named, and nothing fails inside."""
    await create(stub, "a")
    token = (await summary(stub)).next_page_token
    parts = token.split(" ")
    forged = ["x", " ", token + " 0", " ".join(parts[:-1]), "1" * 5000, "²" + token]
    for at, bad in enumerate(["3", "5", "7", "-1", "x", "nan"]):
        forged.append(" ".join([*(["4"] if at else []), *parts[1 if at else 0 : at], bad, *parts[at + 1 :]]))
    forged.append(" ".join([str(2**21), *parts[1:]]))
    forged.append(" ".join([*parts[:-1], "0x1p99999"]))
    forged.append(" ".join([*parts[:-1], "inf"]))
    for one in forged:
        refusal = await wrong(stub, page_token=one)
        assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, "page_token"), one
    assert (await summary(stub, page_token=token)).next_page_token == token


async def test_samples_of_runs(stub: Any) -> None:
    """A few steps of each run come in the order asked for; ids that no run has are left out."""
    for name, count in (("a", 9), ("b", 2)):
        await create(stub, name)
        await advised(stub, name, LOSSES[:count])
        await stored(stub, name)

    async def sampled(ids: list[str], samples: int = 0) -> Any:
        message = pb.SampleRecordsRequest(run_ids=ids, samples=samples)
        return (await stub.SampleRecords(message, timeout=TIMEOUT)).samples

    found = await sampled(["b", "none", "a"], 3)
    assert [(one.run_id, list(one.steps)) for one in found] == [("b", [0, 1]), ("a", [0, 4, 8])]
    assert list(found[1].losses) == [LOSSES[step] for step in (0, 4, 8)]
    assert len(found[1].learning_rates) == 3
    assert [len(one.steps) for one in await sampled(["a"])] == [9]
    for ids, samples, field in (
        ([], 3, "run_ids"),
        (["a"] * 2, 3, "run_ids"),
        ([f"r{n}" for n in range(101)], 3, "run_ids"),
        (["a"], 1, "samples"),
        (["a"], 129, "samples"),
        (["a b"], 3, "run_id"),
    ):
        message = pb.SampleRecordsRequest(run_ids=ids, samples=samples)
        refusal = await refused(stub.SampleRecords(message, timeout=TIMEOUT))
        assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


# ---------------------------------------------------------------------------------- events


async def events(stub: Any, after: int = 0) -> list[tuple[Any, ...]]:
    """Return the events of the run "a"."""
    message = pb.ListRunEventsRequest(run_id="a", after=after)
    listed = (await stub.ListRunEvents(message, timeout=TIMEOUT)).events
    assert all(event.time.seconds > 0 for event in listed)
    return [
        (
            event.number,
            pb.RunEventKind.Name(event.kind).removeprefix("RUN_EVENT_KIND_"),
            event.step,
            event.from_step if event.HasField("from_step") else None,
            event.count if event.HasField("count") else None,
        )
        for event in listed
    ]


async def test_what_happens_to_a_run_is_listed(stub: Any) -> None:
    """Processes that open a run again, rewinds, other numbers of ranks and fallbacks are its events."""

    async def opened(feeder: str, **more: Any) -> None:
        request = pb.OpenRunRequest(run_id="a", feeder=feeder, config=pb.RunConfig(ranks=pb.Ranks()), **more)
        await stub.OpenRun(request, timeout=TIMEOUT)

    await opened("one")
    await opened("other")  # nothing to resume yet
    assert await events(stub) == []
    await advised(stub, "a", LOSSES[:6])
    await opened("one")
    await opened("one", mode=pb.OPEN_MODE_RESUME)  # the same process, as after a lost connection
    await opened("two", resume_from=4)
    await opened("two", world_size=3)
    await opened("two", mode=pb.OPEN_MODE_RESUME, fallback_from=1, fallback_steps=2)
    await opened("two", mode=pb.OPEN_MODE_RESUME, fallback_from=2)
    wanted = [
        (1, "RESUMED", 6, None, None),
        (2, "REWOUND", 4, 6, None),
        (3, "RESUMED", 4, None, None),
        (4, "RESIZED", 4, None, 3),
        (5, "FALLBACK", 1, None, 2),
        (6, "FALLBACK", 2, None, 2),
    ]
    assert await events(stub) == wanted
    assert await events(stub, after=4) == wanted[4:]
    await opened("two", mode=pb.OPEN_MODE_RESTART, fallback_from=0, fallback_steps=7)
    assert await events(stub) == [(1, "FALLBACK", 0, None, 7)]


async def test_a_fallback_beyond_the_record_is_listed(stub: Any) -> None:
    """A client of a daemon that lost answers tells its fallback's steps, which the record has only later.

    A fallback without a number of steps is of those that the record has; if there is none, it is no event.
    """
    await create(stub, "a")
    await advised(stub, "a", LOSSES[:4])
    request = pb.OpenRunRequest(run_id="a", mode=pb.OPEN_MODE_RESUME, fallback_from=6)
    await stub.OpenRun(request, timeout=TIMEOUT)
    request.fallback_from = 4
    await stub.OpenRun(request, timeout=TIMEOUT)
    assert await events(stub) == []
    request.fallback_from, request.fallback_steps = 6, 2
    await stub.OpenRun(request, timeout=TIMEOUT)
    await advised(stub, "a", LOSSES[4:8], start=4)
    assert await events(stub) == [(1, "FALLBACK", 6, None, 2)]


async def test_a_takeover_is_listed(stub: Any) -> None:
    """A process that takes a run while its feeder is connected is told apart from one that resumes it."""
    await create(stub, "a")
    await stub.OpenRun(pb.OpenRunRequest(run_id="a", feeder="one"), timeout=TIMEOUT)
    await advised(stub, "a", LOSSES[:3])
    call = stub.StreamAdvice(timeout=TIMEOUT, metadata=[("mlrs-feeder", "one")])
    await call.write(columns((1, 0, 1.0)))
    await call.read()
    taken = await stub.OpenRun(pb.OpenRunRequest(run_id="a", feeder="two"), timeout=TIMEOUT)
    call.cancel()
    assert taken.took_over
    assert await events(stub) == [(1, "TAKEN_OVER", 3, None, None)]


async def test_wrong_fallbacks_are_refused(stub: Any) -> None:
    """A number of steps without their first, or of none, opens nothing; of no run no events are listed."""
    for given in ({"fallback_steps": 2}, {"fallback_from": 1, "fallback_steps": 0}):
        refusal = await refused(stub.OpenRun(pb.OpenRunRequest(run_id="a", **given), timeout=TIMEOUT))
        assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, "fallback_steps")
    refusal = await refused(stub.ListRunEvents(pb.ListRunEventsRequest(run_id="a"), timeout=TIMEOUT))
    assert refusal.code == grpc.StatusCode.NOT_FOUND
