"""Training continues without a daemon: what the fallback answers, what is logged, and how it ends."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest
import torch

import mlrs
from mlrs import AdviceReason, Ranks, Schedule, schedules
from mlrs.ledger import backlog
from mlrs.ledger.fallback import fallback_of
from mlrs.protocol.deadline import LONGEST_PAUSE_S, Backoff
from mlrs.torch import AdvisedLR
from mlrs.values.types import RunConfig
from mlrs_proto import v1 as pb
from tests.client.conftest import done
from tests.client.fake_daemon import FakeDaemon, lr_sequence
from tests.support.runs import open_run, opened

LOSSES = [2.0, 1.5, 1.2, 1.0, 0.9, 0.8, 0.7, 0.6]
TIMEOUT_S = 0.4


@pytest.fixture
async def advisor(connect: Any, daemon: FakeDaemon) -> Any:
    """An advisor of a flavour with a short deadline."""
    advisor = connect(daemon.target, timeout_s=TIMEOUT_S)
    yield advisor
    await done(advisor.close())


async def patient(advisor: Any, id_: str = "a", **arguments: Any) -> Any:
    """Open a run, patiently: the machine may be slow."""
    return await opened(advisor, id_, **({"timeout_s": 10.0} | arguments))


async def steps(run: Any, losses: list[float], timeout_s: float | None = None) -> list[float]:
    """Observe losses one by one from the run's next step on."""
    return [
        await done(run.next_lr(step, loss, timeout_s=timeout_s))
        for step, loss in enumerate(losses, run.next_step)
    ]


async def recovered(run: Any) -> None:
    """Wait until the run's outage is over."""
    async with asyncio.timeout(20):
        while run._ledger.standby.outage is not None:  # noqa: ASYNC110 # threads answer
            await asyncio.sleep(0.005)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the client logged."""
    return [record.getMessage() for record in caplog.records if record.name == "mlrs"]


@pytest.mark.parametrize("event", ["stop", "silence"])
async def test_an_outage(
    advisor: Any, daemon: FakeDaemon, event: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut off, one step waits for its deadline and the others for nothing; back, all losses count."""
    run = await patient(advisor)
    lrs = await steps(run, LOSSES[:3], 10.0)
    daemon.runs["a"].durable_step = 1
    if event == "stop":
        await asyncio.to_thread(daemon.stop)
    else:
        daemon.may_answer.clear()
    began = time.monotonic()
    advices = [await done(run.observe(step, loss).advice()) for step, loss in enumerate(LOSSES[3:6], 3)]
    assert TIMEOUT_S * 0.9 < time.monotonic() - began < 2 * TIMEOUT_S
    assert [(advice.learning_rate, advice.reason) for advice in advices] == [
        (lrs[-1], AdviceReason.FALLBACK)
    ] * 3
    assert run.fallback_steps == 3
    if event == "stop":
        await asyncio.to_thread(daemon.start)
    daemon.may_answer.set()
    await recovered(run)
    assert await steps(run, LOSSES[6:], 10.0) == lr_sequence(LOSSES)[6:]
    assert daemon.runs["a"].losses == LOSSES
    assert (await done(run.observe(4, LOSSES[4]).advice())).learning_rate == lrs[-1]  # what was used, stays
    await done(run.finish(timeout_s=10.0))
    async with asyncio.timeout(10):
        while len(warnings(caplog)) < 2:  # noqa: ASYNC110 # threads log
            await asyncio.sleep(0.005)
    begin, end = warnings(caplog)
    assert begin.count("'a'") == begin.count("no advice for step 3") == 1
    assert "fallback" in begin
    assert "3 steps were answered by the fallback" in end


async def test_the_error_if_asked_for(advisor: Any, daemon: FakeDaemon) -> None:
    """Without a fallback the error is raised, at each step, in time."""
    for fallback in (None, "error"):
        run = await patient(advisor, fallback=fallback)
        daemon.may_answer.clear()
        with pytest.raises(mlrs.errors.DeadlineExceededError, match="kept"):
            await done(run.next_lr(0, 1.0))
        daemon.may_answer.set()
        assert run.fallback_steps == 0


async def test_before_the_first_advice(advisor: Any, daemon: FakeDaemon) -> None:
    """Before any advice `initial_lr` is the last one; without it the error is raised and says so."""
    run = await patient(advisor)
    daemon.may_answer.clear()
    with pytest.raises(mlrs.errors.DeadlineExceededError, match="initial_lr="):
        await done(run.next_lr(0, 1.0))
    other = await patient(advisor, "b", initial_lr=0.25, timeout_s=10.0)
    assert await steps(other, [1.0, 1.0]) == [0.25, 0.25]
    daemon.may_answer.set()
    assert await done(run.next_lr(0, 1.0, timeout_s=10.0)) == lr_sequence([1.0])[0]


async def test_a_resumed_run_has_a_last_advice(advisor: Any, daemon: FakeDaemon) -> None:
    """A run that was opened again continues from the last advice that the daemon reports."""
    await steps(await patient(advisor), LOSSES[:2], 10.0)
    again = await patient(advisor)
    daemon.may_answer.clear()
    assert await steps(again, LOSSES[2:4]) == [lr_sequence(LOSSES[:2])[-1]] * 2
    daemon.may_answer.set()


async def test_a_schedule(advisor: Any, daemon: FakeDaemon) -> None:
    """A schedule answers by the step, with the run's horizon, its initial LR and its bounds."""
    run = await patient(advisor, horizon=8, initial_lr=0.5, min_lr=0.1, fallback=Schedule("cosine", warmup=2))
    daemon.may_answer.clear()
    cosine = [max(schedules.cosine(step, base_lr=0.5, horizon=8, warmup=2), 0.1) for step in range(8)]
    assert await steps(run, LOSSES) == cosine
    daemon.may_answer.set()


async def test_a_function(advisor: Any, daemon: FakeDaemon) -> None:
    """A function of the step answers; what is no learning rate is refused."""
    run = await patient(advisor, fallback=lambda step: -1 if step == 2 else 0.5 / (1 + step))
    daemon.may_answer.clear()
    assert await steps(run, LOSSES[:2]) == [0.5, 0.25]
    with pytest.raises(mlrs.errors.InvalidArgumentError, match="fallback"):
        await done(run.next_lr(2, 1.0))
    daemon.may_answer.set()


@pytest.mark.parametrize(
    ("fallback", "problem"),
    [
        ("first", "must be 'last'"),
        (0.1, "must be 'last'"),
        (Schedule("plateau", base_lr=0.1), "depends on the losses"),
        (Schedule("cosine", base_lr=0.1), "horizon"),
        (Schedule("constant"), "base_lr"),
        (Schedule("constant", base_lr=0.1, factor=0.5), "factor is no parameter of"),
    ],
)
async def test_bad_fallbacks(advisor: Any, daemon: FakeDaemon, fallback: Any, problem: str) -> None:
    """A fallback that could not answer is refused before the run is opened."""
    with pytest.raises(mlrs.errors.InvalidArgumentError, match=problem):
        await patient(advisor, fallback=fallback)
    assert not daemon.runs


def test_ranks_have_no_fallback_unless_asked_for() -> None:
    """By default a run whose ranks all report has no fallback, and any other run has one."""
    ranked = [RunConfig(ranks=Ranks())]
    assert fallback_of("auto", ranked) is None
    assert fallback_of("last", ranked) is not None
    assert fallback_of("auto", [RunConfig()]) is not None


async def test_sweeps(advisor: Any, daemon: FakeDaemon) -> None:
    """A sweep goes on with each run's last advice, or with what a function returns: a number or an array."""
    last = await done(advisor.sweep(["a", "b"], timeout_s=10.0))
    advised = await done(last.next_lrs(0, [1.0, 2.0], timeout_s=10.0))
    number = await done(advisor.sweep(["c", "d"], fallback=lambda _: 0.5, timeout_s=10.0))
    array = await done(
        advisor.sweep(["e", "f"], fallback=lambda step: np.array([0.1, 0.2]) * step, timeout_s=10.0)
    )
    daemon.may_answer.clear()
    assert (await done(last.next_lrs(1, [1.0, 2.0]))).tolist() == advised.tolist()
    assert (await done(number.next_lrs(0, [1.0, 2.0]))).tolist() == [0.5, 0.5]
    await done(array.next_lrs(0, [1.0, 2.0]))
    assert (await done(array.next_lrs(1, [1.0, 2.0]))).tolist() == [0.1, 0.2]
    assert (last.fallback_steps, array.fallback_steps) == (1, 2)
    daemon.may_answer.set()
    for sweep in (last, number, array):
        await recovered(sweep)
    assert daemon.runs["f"].losses == [2.0, 2.0]


@pytest.mark.parametrize("reason", [pb.ERROR_REASON_QUEUE_FULL, pb.ERROR_REASON_STORE])
async def test_a_daemon_in_trouble(advisor: Any, daemon: FakeDaemon, reason: Any) -> None:
    """A full queue, or a store that cannot be read, is an outage like any other, not the user's error."""
    run = await patient(advisor)
    lrs = await steps(run, LOSSES[:1], 10.0)
    daemon.refuse_next = [reason] * 10_000
    assert await steps(run, LOSSES[1:4]) == lrs * 3
    daemon.refuse_next = []
    await recovered(run)
    assert await steps(run, LOSSES[4:], 10.0) == lr_sequence(LOSSES)[4:]


BEYOND_REPAIR = [
    (pb.ERROR_REASON_DAMAGED, mlrs.errors.RecordDamagedError),
    (pb.ERROR_REASON_STORE_NEWER, mlrs.errors.StoreNewerError),
]
"""What no further try cures."""


async def is_lost(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Wait until the client has logged that the run continues without the daemon for good."""
    async with asyncio.timeout(20):
        while not any(
            "all further steps are answered by the fallback" in warning for warning in warnings(caplog)
        ):
            await done(run.next_lr(run._ledger.next_step, 1.0))
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("reason", [reason for reason, _ in BEYOND_REPAIR])
@pytest.mark.parametrize("where", ["as it joins again", "on the stream"])
async def test_permanent_damage_leaves_the_fallback(
    advisor: Any, daemon: FakeDaemon, reason: Any, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A record that is beyond repair is not asked for again: the fallback continues, with one warning."""
    run = await opened(advisor, "a")
    lrs = await steps(run, LOSSES[:2], 10.0)
    if where == "on the stream":
        daemon.refuse_next = [reason]
    else:
        daemon.refuse_opens = reason
        await asyncio.to_thread(daemon.restart)
    await is_lost(run, caplog)
    asked = daemon.opened
    assert asked == (1 if where == "on the stream" else 2)
    daemon.refuse_opens = None
    assert await done(run.next_lr(run._ledger.next_step, 1.0)) == lrs[-1]
    assert await done(run.finish(timeout_s=10.0)) is None
    assert daemon.opened == asked


@pytest.mark.parametrize(("reason", "kind"), BEYOND_REPAIR)
@pytest.mark.parametrize("where", ["as it joins again", "on the stream"])
async def test_permanent_damage_is_raised(
    advisor: Any, daemon: FakeDaemon, reason: Any, kind: Any, where: str
) -> None:
    """Without a fallback, a record that is beyond repair is an error of its own, at once and not in time."""
    run = await opened(advisor, "a", fallback=None)
    await steps(run, LOSSES[:2], 10.0)
    if where == "on the stream":
        daemon.refuse_next = [reason]
    else:
        daemon.refuse_opens = reason
        await asyncio.to_thread(daemon.restart)
    with pytest.raises(kind) as caught:
        await done(run.next_lr(2, LOSSES[2], timeout_s=60.0))
    assert caught.value.reason == pb.ErrorReason.Name(reason).removeprefix("ERROR_REASON_")


async def test_refusals_are_raised(advisor: Any, daemon: FakeDaemon) -> None:
    """What is the user's error is raised at once, fallback or not."""
    run = await patient(advisor)
    await steps(run, LOSSES[:2], 10.0)
    with pytest.raises(mlrs.errors.StaleStepError):
        await done(run.next_lr(0, 9.0))
    daemon.runs["a"].finished = True
    with pytest.raises(mlrs.errors.RunFinishedError):
        await done(run.next_lr(2, 1.0, timeout_s=10.0))


async def test_a_refusal_after_an_outage(advisor: Any, daemon: FakeDaemon) -> None:
    """What the daemon refuses of the steps that it missed is raised at the next step."""
    run = await patient(advisor)
    await steps(run, LOSSES[:2], 10.0)
    await asyncio.to_thread(daemon.stop)
    await steps(run, LOSSES[2:5])
    daemon.runs["a"].losses[:] = [*LOSSES[:2], 77.0]  # somebody else went on with the run
    await asyncio.to_thread(daemon.start)

    async def go_on() -> None:
        while True:
            await steps(run, [1.0])
            await asyncio.sleep(0.01)

    with pytest.raises(mlrs.errors.StaleStepError):
        await asyncio.wait_for(go_on(), 20)


async def test_a_lagged_loop(advisor: Any, daemon: FakeDaemon) -> None:
    """A loop that never waits continues with the last advice, and past the deadline with the fallback."""
    run = await patient(advisor, fallback=lambda _: 7.0)
    first = await done(run.next_lr(0, 1.0, lagged=True, timeout_s=10.0))
    daemon.may_answer.clear()
    assert await done(run.next_lr(1, 1.0, lagged=True)) == first
    step = 2
    async with asyncio.timeout(20):
        while await done(run.next_lr(step, 1.0, lagged=True)) != 7.0:
            step += 1
            await asyncio.sleep(0.02)
    assert run.fallback_steps == 1
    daemon.may_answer.set()
    await recovered(run)


async def test_an_endless_outage(
    advisor: Any, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond the bound of kept losses the fallback answers to the end; one warning says so."""
    monkeypatch.setattr(backlog, "MAX_UNANSWERED", 80)
    run = await patient(advisor, initial_lr=0.5)
    daemon.may_answer.clear()
    assert await steps(run, [1.0] * 200) == [0.5] * 200
    daemon.may_answer.set()
    assert await steps(run, [1.0] * 5) == [0.5] * 5
    assert run.fallback_steps == 205
    async with asyncio.timeout(10):
        while len(warnings(caplog)) < 2:  # noqa: ASYNC110 # threads log
            await asyncio.sleep(0.005)
    begin, lost = warnings(caplog)
    assert "no advice in time" in begin
    assert "resume_from=" in lost
    assert lost.count("'a'") == 1
    assert "all further steps are answered by the fallback" in lost
    assert await done(run.finish()) is None
    assert len(run._ledger.backlog._kept) == 0


async def test_finishing_in_an_outage(advisor: Any, daemon: FakeDaemon) -> None:
    """`finish` gives up within its deadline, and works once the daemon is back."""
    run = await patient(advisor)
    await steps(run, LOSSES[:2], 10.0)
    await asyncio.to_thread(daemon.stop)
    await steps(run, LOSSES[2:4])
    began = time.monotonic()
    assert await done(run.finish(timeout_s=0.3)) is None
    assert time.monotonic() - began < 0.4
    await asyncio.to_thread(daemon.start)
    assert (await done(run.finish(timeout_s=10.0))).next_step == 4


async def test_resuming_after_a_crash_of_the_client(advisor: Any) -> None:
    """A client that died in an outage continues at the step that the daemon has; rewound, at any before."""
    await steps(await patient(advisor), LOSSES[:4], 10.0)
    again = await patient(advisor)  # the first client is gone without a word
    assert again.next_step == 4
    assert await steps(again, LOSSES[4:6], 10.0) == lr_sequence(LOSSES)[4:6]
    rewound = await patient(advisor, resume_from=2)
    assert rewound.next_step == 2
    assert await steps(rewound, [5.0, 6.0], 10.0) == lr_sequence([*LOSSES[:2], 5.0, 6.0])[2:]


def test_schedulers_go_on(daemon: FakeDaemon) -> None:
    """PyTorch's optimizer is stepped with the fallback's learning rate."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with mlrs.connect(daemon.target, timeout_s=TIMEOUT_S) as advisor:
        run = open_run(advisor, "a", fallback=lambda step: 0.01 * (step + 1), timeout_s=10.0)
        scheduler = AdvisedLR(optimizer, run)
        daemon.may_answer.clear()
        for step in range(3):
            scheduler.observe(1.0)
            optimizer.step()
            scheduler.step()
            assert optimizer.param_groups[0]["lr"] == 0.01 * (step + 1)
        daemon.may_answer.set()


def test_pauses_spread() -> None:
    """Clients that broke together do not come back together: pauses are random, and grow to a second."""
    backoffs = [Backoff() for _ in range(1000)]
    for longest_s in (0.02, 0.04, 0.08, 0.16, 0.32, 0.64, LONGEST_PAUSE_S, LONGEST_PAUSE_S):
        pauses = sorted(backoff.next_s() for backoff in backoffs)
        assert 0.0 <= pauses[0] < 0.05 * longest_s
        assert 0.4 * longest_s < pauses[500] < 0.6 * longest_s
        assert 0.95 * longest_s < pauses[-1] <= longest_s
