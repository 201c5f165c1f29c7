"""Rescue over the wire: configs, the flag in each kind of answer, and the record."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mlrs_core.config import RunConfig
from mlrs_proto import v1 as pb
from mlrs_server.errors import Reason
from mlrs_server.rpc.convert import config_from_proto, config_to_proto
from tests.server.support import create, raises, service

TIMEOUT = 20
CONSTANT = pb.Schedule(base_lr=0.5, constant=pb.Schedule.Constant())


@pytest.fixture
async def stub(tmp_path: Path, model_file: Path) -> AsyncIterator[Any]:
    """A daemon's stub."""
    async with service(tmp_path / "d", model_file) as (connected, _):
        yield connected


@pytest.mark.parametrize("config", [RunConfig(), RunConfig(rescue=True, lr_offset=-1.5)])
def test_configs_come_back(config: RunConfig) -> None:
    """Rescue and the offset are read from the message that they are written to."""
    assert config_from_proto(config_to_proto(config, "")) == config


def test_a_wrong_offset_is_named() -> None:
    """An offset out of range is refused by the field's name."""
    with raises(Reason.INVALID_FIELD, field="config.lr_offset", match="-20 to 20 octaves"):
        config_from_proto(pb.RunConfig(lr_offset=21.0))


async def test_a_plain_call_tells_and_takes_it(stub: Any) -> None:
    """`Advise` answers with the flag, also a repeated observation, and records a restored state."""
    await create(stub, "a", schedule=CONSTANT, rescue=True)
    losses, answers = [1.0, math.nan, math.nan, 1.0, math.inf, -math.inf, 1.0], []
    for step, loss in enumerate(losses):
        request = pb.AdviseRequest(run_id="a", step=step, loss=loss, restored=step == 3)
        answers.append(await stub.Advise(request, timeout=TIMEOUT))
        again = await stub.Advise(request, timeout=TIMEOUT)
        assert again.reason == pb.ADVICE_REASON_REPLAYED
        assert (again.learning_rate, again.restore) == (answers[-1].learning_rate, answers[-1].restore)
    assert [answer.restore for answer in answers] == [step in (2, 5) for step in range(7)]
    assert [answer.learning_rate for answer in answers] == [0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]
    fresh, held = pb.ADVICE_REASON_FRESH, pb.ADVICE_REASON_HELD
    reasons = [fresh, held, held, fresh, held, held, fresh]
    assert [answer.reason for answer in answers] == reasons
    for start in (0, 3):
        request = pb.WatchRunRequest(run_id="a", from_step=start)
        record = [part async for part in stub.WatchRun(request, timeout=TIMEOUT)][-1]
        assert list(record.restores) == [step - start for step in (2, 5) if step >= start]
        assert list(record.restored) == [3 - start]
        assert list(record.reasons) == reasons[start:]


async def test_a_stream_tells_and_takes_it(stub: Any) -> None:
    """A message of several runs is answered with the indexes of those that shall restore a state."""
    handles = [
        await create(stub, name, schedule=CONSTANT, rescue=rescue)
        for name, rescue in (("a", True), ("b", False), ("c", True))
    ]
    call = stub.StreamAdvice(timeout=TIMEOUT)
    got = []
    for steps, losses, restored in (
        ([0, 0, 0], [1.0, 1.0, 1.0], []),
        ([1, 1, 1], [math.nan, math.nan, 1.0], []),
        ([2, 2, 2], [math.nan, math.nan, math.nan], []),
        ([3, 3, 3], [math.nan, 1.0, math.nan], [0]),
        ([4, 4, 4], [math.nan, math.nan, 1.0], []),
    ):
        message = pb.Observations(run_handles=handles, steps=steps, losses=losses, restored=restored)
        await call.write(pb.StreamAdviceRequest(observations=message))
        advice = (await call.read()).advice
        assert not advice.errors
        got.append((list(advice.restores), list(advice.learning_rates)))
    call.cancel()
    halved = [0.5, 0.5, 0.25]
    assert got == [([], [0.5] * 3)] * 2 + [([0], [0.5] * 3), ([2], [0.5] * 3), ([0], halved)]
    request = pb.WatchRunRequest(run_id="a")
    record = [part async for part in stub.WatchRun(request, timeout=TIMEOUT)][-1]
    assert (list(record.restores), list(record.restored)) == ([2, 4], [3])
