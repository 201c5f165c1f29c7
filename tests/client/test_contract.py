"""What both flavours of the client promise: one suite, run on threads and on asyncio."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest

import mlrs
from mlrs import AdviceReason
from mlrs_proto import v1 as pb
from tests.client.conftest import done, until
from tests.client.fake_daemon import FakeDaemon, lr_sequence
from tests.support.runs import opened

LOSSES = [2.3, 1.9, math.nan, 1.2, -0.5, math.inf, 0.9, 0.8]


async def items(iterator: Any) -> list[Any]:
    """Return what an iterator of either flavour gives."""
    if hasattr(iterator, "__aiter__"):
        return [item async for item in iterator]
    return list(iterator)


@pytest.fixture
def advisor(either: Any) -> Any:
    """An advisor of a flavour."""
    return either


async def next_lrs(run: Any, losses: list[float]) -> list[float]:
    """Observe losses one by one from the run's next step on."""
    return [await done(run.next_lr(step, loss)) for step, loss in enumerate(losses, run.next_step)]


async def test_advice(advisor: Any) -> None:
    """Each step gets the daemon's learning rate, with its reason; a non-finite loss is held."""
    run = await opened(advisor, "a")
    pendings = [run.observe(step, loss) for step, loss in enumerate(LOSSES)]
    advices = [await done(pending.advice()) for pending in pendings]
    assert [advice.learning_rate for advice in advices] == lr_sequence(LOSSES)
    assert [advice.step for advice in advices] == list(range(len(LOSSES)))
    assert [advice.reason == AdviceReason.HELD for advice in advices] == [
        not math.isfinite(loss) for loss in LOSSES
    ]
    assert run.next_step == len(LOSSES)


async def test_opening(advisor: Any) -> None:
    """A run is created once, shows the config as resolved, and is resumed at its next step."""
    first = await opened(advisor, "a", horizon=10, optimizer="adam", momentum=0.9)
    assert first.created
    assert first.id == "a"
    assert (first.config.horizon, first.config.optimizer, first.config.momentum) == (10, "adam", 0.9)
    assert first.config.model == "fake@00000000"
    await next_lrs(first, LOSSES[:3])
    second = await opened(advisor, "a")
    assert not second.created
    assert second.next_step == 3
    assert second.config == first.config


async def test_another_config(advisor: Any) -> None:
    """A run resumed with another config is refused, and the error names the field."""
    await opened(advisor, "a", horizon=10)
    with pytest.raises(mlrs.errors.ConfigMismatchError) as caught:
        await opened(advisor, "a", horizon=11)
    assert caught.value.field == "horizon"
    assert caught.value.reason == "CONFIG_MISMATCH"


async def test_leaving_does_not_finish(advisor: Any, daemon: FakeDaemon) -> None:
    """Leaving a run detaches from it; it can be opened again, and only `finish` finishes it."""
    run = await opened(advisor, "a")
    await next_lrs(run, LOSSES[:2])
    run.detach()
    with pytest.raises(mlrs.errors.ClosedError, match="open it again"):
        run.observe(2, 1.0)
    assert not daemon.runs["a"].finished
    again = await opened(advisor, "a")
    assert await next_lrs(again, LOSSES[2:]) == lr_sequence(LOSSES)[2:]
    assert (await done(again.finish())).status == "finished"
    with pytest.raises(mlrs.errors.RunFinishedError):
        await done(again.next_lr(again.next_step, 1.0))


async def test_pending_outlives_its_run(advisor: Any) -> None:
    """Advice for observations before leaving a run can be read afterwards."""
    run = await opened(advisor, "a")
    pendings = [run.observe(step, loss) for step, loss in enumerate(LOSSES)]
    run.detach()
    assert [await done(pending.lr()) for pending in pendings] == lr_sequence(LOSSES)


async def test_finishing_sends_again_what_was_lost(advisor: Any, daemon: FakeDaemon) -> None:
    """A daemon that has lost answered steps without a break of the stream gets them before the run ends."""
    run = await opened(advisor, "a")
    await next_lrs(run, LOSSES)
    daemon.runs["a"].cut(2)
    assert (await done(run.finish())).next_step == len(LOSSES)
    assert lr_sequence(daemon.runs["a"].losses) == lr_sequence(LOSSES)


async def test_finishing_waits_for_what_was_sent(advisor: Any) -> None:
    """`finish` includes unanswered observations."""
    run = await opened(advisor, "a")
    for step, loss in enumerate(LOSSES):
        run.observe(step, loss)
    info = await done(run.finish())
    assert info.next_step == len(LOSSES)
    assert info.durable_step == len(LOSSES) - 1


async def test_finishing_again_after_the_answer_was_lost(advisor: Any, daemon: FakeDaemon) -> None:
    """A run that is finished already, with all that was observed, is no error; with less, it is."""
    run, cut_short = await opened(advisor, "a"), await opened(advisor, "b")
    await next_lrs(run, LOSSES)
    await next_lrs(cut_short, LOSSES)
    daemon.runs["a"].finished = daemon.runs["b"].finished = True
    del daemon.runs["b"].losses[-2:]
    daemon.cut()
    assert (await done(run.finish())).next_step == len(LOSSES)
    with pytest.raises(mlrs.errors.RunFinishedError):
        await done(cut_short.finish())


async def test_repeats(advisor: Any, daemon: FakeDaemon) -> None:
    """A repeated step is answered from the client's record, and moves nothing."""
    run = await opened(advisor, "a")
    await next_lrs(run, LOSSES)
    before = daemon.entries
    advice = await done(run.observe(4, LOSSES[4]).advice())
    assert (advice.learning_rate, advice.reason) == (lr_sequence(LOSSES)[4], AdviceReason.REPLAYED)
    assert daemon.entries == before
    with pytest.raises(mlrs.errors.StaleStepError, match="resume_from=4"):
        run.observe(4, 99.0)


async def test_repeats_of_an_earlier_process(advisor: Any) -> None:
    """A step that an earlier process observed is answered from the daemon's record."""
    await next_lrs(await opened(advisor, "a"), LOSSES)
    later = await opened(advisor, "a")
    advice = await done(later.observe(4, LOSSES[4]).advice())
    assert (advice.learning_rate, advice.reason) == (lr_sequence(LOSSES)[4], AdviceReason.REPLAYED)
    with pytest.raises(mlrs.errors.StaleStepError) as caught:
        await done(later.next_lr(4, 99.0))
    assert caught.value.next_step == len(LOSSES)
    assert later.next_step == len(LOSSES)


async def test_steps_and_losses_that_are_none(advisor: Any) -> None:
    """Arguments of the wrong type are refused before anything is sent, and so is a step ahead."""
    run = await opened(advisor, "a")
    with pytest.raises(mlrs.errors.StepAheadError, match="next step is 0"):
        run.observe(1, 1.0)
    for step, loss, field in [(-1, 1.0, "step"), (True, 1.0, "step"), (0, "1.0", "loss")]:
        with pytest.raises(mlrs.errors.InvalidArgumentError) as caught:
            run.observe(step, loss)
        assert caught.value.field == field
    assert await next_lrs(run, [1.0]) == lr_sequence([1.0])


async def test_rewinding(advisor: Any) -> None:
    """`resume_from` drops the record from a step on, and another loss is taken there."""
    await next_lrs(await opened(advisor, "a"), LOSSES)
    rewound = await opened(advisor, "a", resume_from=3)
    assert rewound.next_step == 3
    assert await next_lrs(rewound, [7.0]) == lr_sequence([*LOSSES[:3], 7.0])[3:]


@pytest.mark.parametrize("event", ["cut", "drain", "stale handles", "restart"])
async def test_broken_streams(advisor: Any, daemon: FakeDaemon, event: str) -> None:
    """Whatever breaks the stream, the learning rates are those of an undisturbed run."""
    run, other = await opened(advisor, "a"), await opened(advisor, "b")
    lrs = await next_lrs(run, LOSSES)
    await next_lrs(other, LOSSES[:1])
    daemon.runs["a"].durable_step = 2
    lrs += await next_lrs(run, LOSSES)
    unanswered = [run.observe(2 * len(LOSSES) + step, loss) for step, loss in enumerate(LOSSES)]
    if event == "drain":
        daemon.drain()
    elif event == "cut":
        daemon.tell(pb.StreamAdviceResponse())  # says nothing, and is passed over
        daemon.cut()
    elif event == "restart":
        daemon.restart()
    else:
        daemon.lose()
    lrs += [await done(pending.lr()) for pending in unanswered]
    lrs += await next_lrs(run, LOSSES)
    assert lrs == lr_sequence(LOSSES * 4)
    assert await next_lrs(other, LOSSES[1:]) == lr_sequence(LOSSES)[1:]


async def test_daemon_that_stays_away(connect: Any, daemon: FakeDaemon) -> None:
    """While the daemon is gone a call fails within its deadline; once it is back the next one continues."""
    advisor = connect(daemon.target, timeout_s=5.0)
    run = await opened(advisor, "a", fallback=None)
    await next_lrs(run, LOSSES[:3])
    daemon.stop()
    pending = run.observe(3, LOSSES[3])
    began = time.monotonic()
    with pytest.raises(mlrs.UnavailableError, match="kept"):
        await done(pending.lr(timeout_s=0.3))
    assert time.monotonic() - began < 2.0
    daemon.start()
    assert await done(pending.lr()) == lr_sequence(LOSSES)[3]
    assert await next_lrs(run, LOSSES[4:]) == lr_sequence(LOSSES)[4:]
    await done(advisor.close())


async def test_daemon_that_was_never_there(connect: Any) -> None:
    """An address where no server listens fails at the first call, and the message says what to check."""
    advisor = connect("127.0.0.1:1", timeout_s=5.0)
    with pytest.raises(mlrs.UnavailableError, match="mlrs serve"):
        await opened(advisor, "a")
    await done(advisor.close())


async def test_slow_daemon(advisor: Any, daemon: FakeDaemon) -> None:
    """A daemon that does not answer in time is a `DeadlineExceededError`; the answer is not lost."""
    run = await opened(advisor, "a", fallback=None)
    daemon.may_answer.clear()
    pending = run.observe(0, 1.0)
    with pytest.raises(mlrs.errors.DeadlineExceededError, match="step 0"):
        await done(pending.lr(timeout_s=0.05))
    assert not pending.done()
    daemon.may_answer.set()
    assert await done(pending.lr()) == lr_sequence([1.0])[0]
    assert pending.done()


async def test_full_queue(advisor: Any, daemon: FakeDaemon) -> None:
    """An observation for which the daemon's queue was full is sent again, with the later ones."""
    run = await opened(advisor, "a")
    daemon.refuse_next = [pb.ERROR_REASON_QUEUE_FULL] * 2
    pendings = [run.observe(step, loss) for step, loss in enumerate(LOSSES)]
    assert [await done(pending.lr()) for pending in pendings] == lr_sequence(LOSSES)


async def test_memory_full_on_a_new_run(advisor: Any, daemon: FakeDaemon) -> None:
    """A new run for which the daemon has no memory fails at once."""
    daemon.full_opens = 1
    with pytest.raises(mlrs.errors.MemoryFullError):
        await opened(advisor, "a")
    assert daemon.full_opens == 0


async def test_memory_full_on_the_way_back(advisor: Any, daemon: FakeDaemon) -> None:
    """A run for which a restarted daemon has no memory yet is retried, and continues once there is some."""
    run = await opened(advisor, "a")
    await next_lrs(run, LOSSES[:3])
    daemon.full_opens = 2
    daemon.lose()
    assert await next_lrs(run, LOSSES[3:]) == lr_sequence(LOSSES)[3:]
    assert daemon.full_opens == 0


async def test_memory_that_stays_full(advisor: Any, daemon: FakeDaemon) -> None:
    """No memory until the deadline is a `MemoryFullError`; the observation is kept and sent later."""
    run = await opened(advisor, "a", fallback=None)
    await next_lrs(run, LOSSES[:3])
    daemon.full_opens = 1000
    daemon.lose()
    pending = run.observe(3, LOSSES[3])
    with pytest.raises(mlrs.errors.MemoryFullError, match="kept"):
        await done(pending.lr(timeout_s=0.3))
    daemon.full_opens = 0
    assert await done(pending.lr()) == lr_sequence(LOSSES)[3]


async def test_queue_that_stays_full(advisor: Any, daemon: FakeDaemon) -> None:
    """A full queue until the deadline is a `QueueFullError`."""
    run = await opened(advisor, "a", fallback=None)
    daemon.refuse_next = [pb.ERROR_REASON_QUEUE_FULL] * 1000
    pending = run.observe(0, 1.0)
    await until(lambda: len(daemon.refuse_next) < 999)  # the first refusal has arrived
    with pytest.raises(mlrs.errors.QueueFullError):
        await done(pending.lr(timeout_s=0.3))
    daemon.refuse_next = []
    assert await next_lrs(run, LOSSES[:0]) == []
    assert await done(run.next_lr(0, 1.0)) == lr_sequence([1.0])[0]


async def test_refusals(advisor: Any, daemon: FakeDaemon) -> None:
    """A refused observation raises for its step and those behind it, and the step is due again."""
    run = await opened(advisor, "a", fallback=None)
    daemon.refuse_next = [pb.ERROR_REASON_INVALID_FIELD]
    pendings = [run.observe(step, 1.0) for step in range(3)]
    for pending in pendings:
        with pytest.raises(mlrs.errors.InvalidArgumentError):
            await done(pending.lr())
    assert run.next_step == 0
    assert await next_lrs(run, LOSSES) == lr_sequence(LOSSES)


async def test_deleted_run(advisor: Any) -> None:
    """A run that was deleted under way is a `RunNotFoundError`."""
    run = await opened(advisor, "a", fallback=None)
    await next_lrs(run, LOSSES)
    await done(advisor.delete_run("a"))
    with pytest.raises(mlrs.errors.RunNotFoundError):
        await done(run.next_lr(len(LOSSES), 1.0))


async def test_run_moved_by_another(advisor: Any, daemon: FakeDaemon) -> None:
    """A run that another process moved while the stream was broken is a `RecordGapError`."""
    run = await opened(advisor, "a")
    await next_lrs(run, LOSSES)
    daemon.runs["a"].losses += [1.0, 1.0]
    daemon.cut()
    with pytest.raises(mlrs.errors.RecordGapError) as caught:
        await done(run.next_lr(len(LOSSES), 1.0))
    assert caught.value.next_step == len(LOSSES) + 2


async def test_lists(advisor: Any) -> None:
    """Lists hide their pages, are ordered as asked, limited and filtered, and hold each run once."""
    for run_id in ["a/1", "a/2", "a/3", "b/1"]:
        await opened(advisor, run_id)
    assert [run.id for run in await items(advisor.runs())] == ["a/1", "a/2", "a/3", "b/1"]
    assert [run.id for run in await items(advisor.runs(prefix="a/"))] == ["a/1", "a/2", "a/3"]
    newest = [run.id for run in await items(advisor.runs(newest_first=True))]
    assert newest == ["b/1", "a/3", "a/2", "a/1"]
    for limit in (1, 2, 3, 9):
        assert [run.id for run in await items(advisor.runs(newest_first=True, limit=limit))] == newest[:limit]
    assert [run.id for run in await items(advisor.runs("a/", limit=1))] == ["a/1"]
    assert (await done(advisor.get_run("a/1"))).next_step == 0
    assert [model.name for model in await items(advisor.models())] == ["fake"]
    with pytest.raises(mlrs.errors.InvalidArgumentError, match="status"):
        await items(advisor.runs(status="asleep"))
    with pytest.raises(mlrs.errors.InvalidArgumentError, match="limit"):
        await items(advisor.runs(limit=0))


async def test_watching(advisor: Any) -> None:
    """A record can be read from a step on."""
    await next_lrs(await opened(advisor, "a"), [1.0, 2.0, 3.0])
    chunks = await items(advisor.watch("a", from_step=1))
    assert [(chunk.first_step, chunk.losses) for chunk in chunks] == [(1, ()), (1, (2.0,)), (2, (3.0,))]
    with pytest.raises(mlrs.errors.RunNotFoundError):
        await items(advisor.watch("b"))


async def test_calls_that_are_not_built(advisor: Any) -> None:
    """A call that the daemon does not build says so."""
    with pytest.raises(mlrs.errors.NotBuiltError):
        await done(advisor.model("fake"))


async def test_closing(connect: Any, daemon: FakeDaemon) -> None:
    """Closing waits for what was sent, may be repeated, and every later call says that it is closed."""
    advisor = connect(daemon.target, timeout_s=10.0)
    run = await opened(advisor, "a")
    pendings = [run.observe(step, loss) for step, loss in enumerate(LOSSES)]
    await done(advisor.close())
    await done(advisor.close())
    assert [await done(pending.lr()) for pending in pendings if pending.done()] == lr_sequence(LOSSES)
    for call in (lambda: run.observe(9, 1.0), lambda: advisor.get_run("a"), run.finish):
        with pytest.raises(mlrs.errors.ClosedError):
            await done(call())


async def test_closing_under_a_daemon_that_hangs(connect: Any, daemon: FakeDaemon) -> None:
    """Closing ends within its deadline even if the daemon does not answer; waiting calls raise."""
    advisor = connect(daemon.target, timeout_s=0.3)
    run = await opened(advisor, "a", timeout_s=10.0)
    daemon.may_answer.clear()
    pending = run.observe(0, 1.0)
    began = time.monotonic()
    await done(advisor.close())
    assert time.monotonic() - began < 3.0
    with pytest.raises(mlrs.errors.ClosedError):
        await done(pending.lr())


async def test_asyncio_conveniences(daemon: FakeDaemon) -> None:
    """`async with` opens and leaves, a pending can be awaited itself, and tasks run side by side."""
    async with mlrs.aio.connect(daemon.target, timeout_s=10.0) as advisor:

        async def train(run_id: str) -> list[float]:
            async with advisor.run("task", id=run_id, on_existing="resume") as run:
                return [await run.observe(step, loss) for step, loss in enumerate(LOSSES)]

        results = await asyncio.gather(*(train(f"run-{index}") for index in range(20)))
        assert all(lrs == lr_sequence(LOSSES) for lrs in results)
