"""Lagged advice: a loop that never waits gets the learning rate of the step before."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import time
from typing import Any

import pytest

import mlrs
from mlrs.api.views import Lag
from mlrs.ledger import backlog as _backlog
from mlrs.ledger.entries import Entry
from mlrs_proto import v1 as pb
from tests.client.conftest import done
from tests.client.fake_daemon import FakeDaemon, lr_sequence
from tests.support.runs import opened

LOSSES = [2.0, 1.5, 1.2, 1.0, 0.9, 0.8, 0.7, 0.6]


async def answered(run: Any) -> None:
    """Wait until every observation of a run has its answer."""
    async with asyncio.timeout(10):
        while run._ledger.backlog.last_unanswered() is not None:  # noqa: ASYNC110 # threads answer
            await asyncio.sleep(0.001)


async def test_the_step_before(either: Any) -> None:
    """Each step gets the learning rate of the loss before it, the first its own."""
    run = await opened(either, "a")
    lrs = []
    for step, loss in enumerate(LOSSES):
        lrs.append(await done(run.next_lr(step, loss, lagged=True)))
        await answered(run)
    rates = lr_sequence(LOSSES)
    assert lrs == [rates[0], *rates[:-1]]


async def test_it_never_waits(either: Any, daemon: FakeDaemon) -> None:
    """While the daemon answers nothing, the last learning rate applies, and no step waits for a deadline."""
    run = await opened(either, "a")
    first = await done(run.next_lr(0, LOSSES[0], lagged=True))
    daemon.may_answer.clear()
    began = time.monotonic()
    held = [await done(run.next_lr(step, LOSSES[step], lagged=True)) for step in range(1, 6)]
    assert held == [first] * 5
    assert time.monotonic() - began < 5.0  # the deadline is 10
    daemon.may_answer.set()
    await answered(run)
    assert await done(run.next_lr(6, LOSSES[6], lagged=True)) == lr_sequence(LOSSES)[5]


@pytest.mark.parametrize("event", ["cut", "drain", "restart"])
async def test_it_joins_again_behind_the_loop(either: Any, daemon: FakeDaemon, event: str) -> None:
    """A broken stream is joined again without any step waiting, and no loss is lost."""
    run = await opened(either, "a")
    for step in range(3):
        await done(run.next_lr(step, LOSSES[step], lagged=True))
    await asyncio.to_thread(getattr(daemon, event))
    step = 3
    async with asyncio.timeout(20):
        while run._ledger.backlog.last_unanswered() is not None or step == 3:
            await done(run.next_lr(step, 0.5, lagged=True))
            step += 1
            await asyncio.sleep(0.02)
    losses = [*LOSSES[:3], *[0.5] * (step - 3)]
    assert await done(run.next_lr(step, 0.5)) == lr_sequence([*losses, 0.5])[-1]
    assert daemon.runs["a"].losses == [*losses, 0.5]


async def test_refusals_are_told(either: Any, daemon: FakeDaemon) -> None:
    """What the daemon refused raises at a later step, with its reason."""
    run = await opened(either, "a")
    await done(run.next_lr(0, LOSSES[0], lagged=True))
    daemon.runs["a"].finished = True
    await done(run.next_lr(1, LOSSES[1], lagged=True))
    await answered(run)
    with pytest.raises(mlrs.errors.RunFinishedError):
        await done(run.next_lr(2, LOSSES[2], lagged=True))


async def test_a_gap_is_told(either: Any, daemon: FakeDaemon) -> None:
    """A run that cannot be caught up, as another process moved it, raises at a later step."""
    run = await opened(either, "a")
    await done(run.next_lr(0, LOSSES[0], lagged=True))
    daemon.runs["a"].losses += [9.0] * 50
    daemon.runs["a"].durable_step = 50
    await asyncio.to_thread(daemon.restart)

    async def go_on() -> None:
        for step in range(1, 50):
            await done(run.next_lr(step, 0.5, lagged=True))
            await asyncio.sleep(0.05)

    with pytest.raises(mlrs.errors.RecordGapError):
        await asyncio.wait_for(go_on(), 20)


def test_lag() -> None:
    """The newest learning rate is that of the last step which has one, with all before it answered."""
    lag, entries = Lag(), [Entry(step, 1.0) for step in range(3)]
    for entry in entries:
        assert lag.newest(before=2) is None
        lag.add(entry)
    assert lag.late_s() == 0.0
    assert lag.late_s() > 0.0
    entries[1].fill(pb.AdviceColumns(learning_rates=[0.2], durable_steps=[0]), 0)
    assert lag.newest(before=2) is None
    entries[0].fill(pb.AdviceColumns(learning_rates=[0.1], durable_steps=[0]), 0)
    assert lag.newest(before=2) == 0.2
    assert lag.late_s() == 0.0


@pytest.mark.parametrize("line", range(6))
@pytest.mark.parametrize("asked", [1, 2])
def test_lag_is_shared_by_threads(line: int, asked: int) -> None:
    """While a thread asks how late the advice is, another may take it, at whatever moment."""
    lag, entries, takers = Lag(), [Entry(step, 1.0) for step in range(2)], list[threading.Thread]()
    for entry in entries:
        lag.add(entry)
    if asked == 2:
        assert lag.late_s() == 0.0
    for entry in entries:
        entry.fill(pb.AdviceColumns(learning_rates=[0.1], durable_steps=[0]), 0)
    lines = itertools.count()

    def trace(frame: Any, event: str, _argument: object) -> Any:
        if frame.f_code is Lag.late_s.__code__ and event == "line" and next(lines) == line:
            takers.append(threading.Thread(target=lag.newest, args=[2]))
            takers[0].start()
            takers[0].join(0.1)  # it ends, or waits for the lock
        return trace

    tracing = sys.gettrace()
    sys.settrace(trace)
    try:
        late_s = lag.late_s()
    finally:
        sys.settrace(tracing)
    assert late_s >= 0.0
    for taker in takers:
        taker.join(10)
    assert lag.newest(before=2) == 0.1
    assert lag.late_s() == 0.0


async def test_a_long_outage_loses_nothing(
    either: Any, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that is away for more steps than a ledger keeps of answered ones gets all when it is back."""
    monkeypatch.setattr(_backlog, "MAX_KEPT", 70)
    run = await opened(either, "a")
    first = await done(run.next_lr(0, LOSSES[0], lagged=True))
    daemon.runs["a"].durable_step = 0
    await asyncio.to_thread(daemon.stop)
    losses = [LOSSES[0], *[1.0 + step for step in range(150)]]
    for step in range(1, len(losses)):
        assert await done(run.next_lr(step, losses[step], lagged=True)) == first
    await asyncio.to_thread(daemon.start)
    assert await done(run.next_lr(len(losses), 0.5)) == lr_sequence([*losses, 0.5])[-1]
    assert daemon.runs["a"].losses == [*losses, 0.5]


async def test_an_endless_outage_is_told(
    either: Any, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for an answer is bounded; without a fallback a step beyond is refused, and says so."""
    monkeypatch.setattr(_backlog, "MAX_UNANSWERED", 80)
    run = await opened(either, "a", fallback=None)
    await done(run.next_lr(0, 1.0, lagged=True))
    daemon.may_answer.clear()
    for step in range(1, 81):
        await done(run.next_lr(step, 1.0, lagged=True))
    with pytest.raises(mlrs.errors.LimitError, match="80 steps have no answer"):
        await done(run.next_lr(81, 1.0, lagged=True))
    daemon.may_answer.set()


def test_refused_steps_are_told_once() -> None:
    """Steps that were refused with an earlier one raise one error; sent again, they are new."""
    lag, entries = Lag(), [Entry(step, 1.0) for step in range(4)]
    for entry in entries:
        lag.add(entry)
        entry.error = mlrs.errors.RunFinishedError("refused")
    with pytest.raises(mlrs.errors.RunFinishedError):
        lag.newest(before=4)
    assert lag.newest(before=4) is None
    for step in (0, 1):
        lag.add(again := Entry(step, 1.0))
        again.fill(pb.AdviceColumns(learning_rates=[0.1 + step], durable_steps=[0]), 0)
    assert lag.newest(before=2) == 1.1


async def test_a_run_that_was_left_does_not_come_back(either: Any, daemon: FakeDaemon) -> None:
    """A run that is left while it is being joined again takes part in nothing any more."""
    run = await opened(either, "a")
    await done(run.next_lr(0, 1.0, lagged=True))
    await asyncio.to_thread(daemon.cut)
    run.detach()
    session = either._connection.session
    assert not session.needs_joining(run._ledger)
    session.host.ensure_joined(run._ledger)
    other = await opened(either, "b")
    assert await done(other.next_lr(0, 1.0)) == lr_sequence([1.0])[0]
    assert session.conversation_of(run._ledger) is None
