"""Signals and validation losses over the wire: read from messages, refused if they are wrong, and shown."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrs_core.policy import SIGNALS
from mlrs_proto import v1 as pb
from mlrs_server.domain.extras import SparseExtras, agree, is_sent, none_sent
from mlrs_server.errors import Reason
from mlrs_server.rpc.convert import entries_from_proto
from mlrs_server.rpc.convert.extras import (
    extras_of_one,
    restored_to_proto,
    signals_to_proto,
    validations_to_proto,
)
from tests.server.sensing import extras_at, extras_of
from tests.server.support import create, raises, refused, service

TIMEOUT = 20


@pytest.fixture
async def stub(tmp_path: Path, model_file: Path) -> AsyncIterator[Any]:
    """A daemon's stub."""
    async with service(tmp_path / "d", model_file) as (connected, _):
        yield connected


def message(steps: range, handle: int = 1, *, has_extras: bool = True) -> pb.Observations:
    """Return a message of steps of a run, with the extras that `extras_at` gives them."""
    extras = extras_of(steps.start, steps.stop)
    has = np.flatnonzero(is_sent(extras))
    sparse = SparseExtras(has, extras[has])
    return pb.Observations(
        run_handles=[handle] * len(steps),
        steps=steps,
        losses=[1.0 + step for step in steps],
        signals=signals_to_proto(sparse) if has_extras else None,
        validations=validations_to_proto(sparse) if has_extras else None,
        restored=restored_to_proto(sparse) if has_extras else None,
    )


@given(start=st.integers(0, 40), count=st.integers(1, 40))
def test_extras_come_back_from_their_columns(start: int, count: int) -> None:
    """What is written into columns is read from them as it was, bit for bit."""
    entries = entries_from_proto(message(range(start, start + count)))
    if entries.extras is None:
        assert not is_sent(extras_of(start, start + count)).any()
    else:
        assert agree(entries.extras, extras_of(start, start + count)).all()


def test_columns_that_no_entry_has_are_left_out() -> None:
    """A message with one validation loss has no columns of signals, and the other way round."""
    extras = none_sent(1)
    extras[0, 2] = 0.5
    sparse = SparseExtras(np.array([3]), extras)
    assert signals_to_proto(sparse) == pb.SignalColumns(entries=[3], grad_norm2=[0.5])
    assert validations_to_proto(sparse) is None
    assert restored_to_proto(sparse) == []


def test_messages_without_extras_have_no_array_of_them() -> None:
    """A message without signals and validation losses costs nothing for them."""
    assert entries_from_proto(message(range(1), has_extras=False)).extras is None
    assert entries_from_proto(message(range(5), has_extras=False)).extras is None
    assert extras_of_one(pb.AdviseRequest(step=3), 3) is None


WRONG: dict[str, tuple[pb.Observations, str, str]] = {
    "restored out of range": (
        pb.Observations(restored=[0, 2]),
        "restored",
        "must be below the number of entries, 2; one is 2",
    ),
    "restored twice": (pb.Observations(restored=[1, 1]), "restored", "at most once"),
    "entry out of range": (
        pb.Observations(signals=pb.SignalColumns(entries=[2], grad_norm2=[1.0])),
        "signals.entries",
        "must be below the number of entries, 2; one is 2",
    ),
    "entry twice": (
        pb.Observations(signals=pb.SignalColumns(entries=[1, 1], grad_norm2=[1.0, 1.0])),
        "signals.entries",
        "at most once",
    ),
    "short column": (
        pb.Observations(signals=pb.SignalColumns(entries=[0, 1], param_norm2=[1.0])),
        "signals.param_norm2",
        "must be as long as signals.entries, 2, or empty; is of length 1",
    ),
    "column without entries": (
        pb.Observations(signals=pb.SignalColumns(update_norm2=[1.0])),
        "signals.update_norm2",
        "is of length 1",
    ),
    "validated entry out of range": (
        pb.Observations(validations=pb.ValidationColumns(entries=[7], steps=[0], losses=[1.0])),
        "validations.entries",
        "one is 7",
    ),
    "validated entry twice": (
        pb.Observations(validations=pb.ValidationColumns(entries=[0, 0], steps=[0, 0], losses=[1.0, 1.0])),
        "validations.entries",
        "at most once",
    ),
    "no steps": (
        pb.Observations(validations=pb.ValidationColumns(entries=[0], losses=[1.0])),
        "validations.steps",
        "must be as long as validations.entries, 1; is of length 0",
    ),
    "no losses": (
        pb.Observations(validations=pb.ValidationColumns(entries=[0], steps=[0])),
        "validations.losses",
        "is of length 0",
    ),
    "later step": (
        pb.Observations(validations=pb.ValidationColumns(entries=[1], steps=[2], losses=[1.0])),
        "validations.steps",
        "must be at most the step of the observation that it comes with, 1; is 2",
    ),
    "step too far": (
        pb.Observations(validations=pb.ValidationColumns(entries=[1], steps=[2**63], losses=[1.0])),
        "validations.steps",
        "at most 9007199254740992",
    ),
}


@pytest.mark.parametrize("case", WRONG)
async def test_wrong_extras_are_named_and_lose_nothing(stub: Any, case: str) -> None:
    """A message with wrong extras is refused with the field's name; sent again as it should be, it is new."""
    wrong, field, says = WRONG[case]
    handle = await create(stub, "a")
    right = pb.Observations(run_handles=[handle] * 2, steps=[0, 1], losses=[1.0, 2.0])
    wrong = pb.Observations.FromString(right.SerializeToString() + wrong.SerializeToString())
    with raises(Reason.INVALID_FIELD, field=field, match=says):
        entries_from_proto(wrong)
    call = stub.StreamAdvice(timeout=TIMEOUT)
    await call.write(pb.StreamAdviceRequest(observations=wrong))
    refusal = await refused(call)
    assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    call = stub.StreamAdvice(timeout=TIMEOUT)
    await call.write(pb.StreamAdviceRequest(observations=right))
    advice = (await call.read()).advice
    assert (list(advice.reasons), list(advice.errors)) == ([], [])
    call.cancel()


async def test_a_plain_call_takes_signals_and_a_validation_loss(stub: Any) -> None:
    """`Advise` records what comes with its observation, repeats its answer, and refuses other extras."""
    await create(stub, "a")
    request = pb.AdviseRequest(run_id="a", step=0, loss=1.0, signals=pb.Signals(grad_norm2=0.0))
    request.validation.step, request.validation.loss = 0, math.nan
    first = await stub.Advise(request, timeout=TIMEOUT)
    again = await stub.Advise(request, timeout=TIMEOUT)
    assert (first.reason, again.reason) == (pb.ADVICE_REASON_FRESH, pb.ADVICE_REASON_REPLAYED)
    assert first.learning_rate == again.learning_rate
    request.signals.param_norm2 = 2.0
    refusal = await refused(stub.Advise(request, timeout=TIMEOUT))
    assert refusal.reason == "ERROR_REASON_STALE_STEP"
    assert "with no param_norm2, and comes now with the param_norm2 2.0" in refusal.message
    late = pb.AdviseRequest(run_id="a", step=1, loss=1.0, validation=pb.Validation(step=2, loss=1.0))
    refusal = await refused(stub.Advise(late, timeout=TIMEOUT))
    assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, "validation.step")
    (_, record) = [part async for part in stub.WatchRun(pb.WatchRunRequest(run_id="a"), timeout=TIMEOUT)]
    assert record.signals == pb.SignalColumns(entries=[0], grad_norm2=[0.0])
    assert (list(record.validations.entries), list(record.validations.steps)) == ([0], [0])
    assert math.isnan(record.validations.losses[0])


async def test_a_record_shows_extras_from_any_step_on(stub: Any) -> None:
    """A follower gets what came with the steps that it asked for, also what is not finite."""
    handle = await create(stub, "a")
    call = stub.StreamAdvice(timeout=TIMEOUT)
    for steps in (range(1), range(1, 3), range(3, 20)):
        await call.write(pb.StreamAdviceRequest(observations=message(steps, handle)))
        assert not (await call.read()).advice.errors
    call.cancel()
    for start in (0, 4, 19):
        request = pb.WatchRunRequest(run_id="a", from_step=start)
        (_, record) = [part async for part in stub.WatchRun(request, timeout=TIMEOUT)]
        again = pb.Observations(
            run_handles=[1] * (20 - start),
            steps=range(start, 20),
            losses=record.losses,
            signals=record.signals,
            validations=record.validations,
            restored=record.restored,
        )
        found = entries_from_proto(again).extras
        assert found is not None
        assert agree(found, extras_of(start, 20)).all()


async def test_extras_reach_the_record_before_a_crash_as_losses_do(stub: Any) -> None:
    """A step is not durable before what came with it is: both are in one transaction."""
    handle = await create(stub, "a")
    call = stub.StreamAdvice(timeout=TIMEOUT)
    await call.write(pb.StreamAdviceRequest(observations=message(range(1, 2), handle)))
    assert (await call.read()).advice.errors[0].next_step == 0
    call.cancel()
    watching = stub.WatchRun(pb.WatchRunRequest(run_id="a", follow=True), timeout=TIMEOUT)
    await watching.read()
    call = stub.StreamAdvice(timeout=TIMEOUT)
    await call.write(pb.StreamAdviceRequest(observations=message(range(3), handle)))
    record = await asyncio.wait_for(watching.read(), TIMEOUT)
    assert len(record.losses) == 3
    assert list(record.signals.entries) == [1, 2]
    watching.cancel()
    call.cancel()


def test_all_signals_of_the_contract_are_read() -> None:
    """The contract's messages have a field for each signal, and no others."""
    for kind in (pb.Signals, pb.SignalColumns):
        fields = {field.name for field in kind.DESCRIPTOR.fields} - {"entries"}
        assert fields == set(SIGNALS)
    request = pb.AdviseRequest(signals=pb.Signals(**dict.fromkeys(SIGNALS, 0.5)))
    extras = extras_of_one(request, 0)
    assert extras is not None
    assert extras[0, : len(SIGNALS)].tolist() == [0.5] * len(SIGNALS)
    assert np.isnan(extras[0, len(SIGNALS) :]).all()
    assert not np.isnan(extras_at(4)).all()
