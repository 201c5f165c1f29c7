"""Records in buckets and samples, and the events of runs, in both flavours of the client."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

import mlrs
from mlrs.errors import InvalidArgumentError, RunNotFoundError
from mlrs.ledger.entries import Entry
from mlrs.ledger.fallback import fallback_of
from mlrs.ledger.open_request import FallbackSteps
from mlrs.ledger.standby import Standby
from mlrs.types import RunEventKind, Signals
from tests.client.conftest import done
from tests.client.fake_daemon import FakeDaemon
from tests.client.ledger.test_fallback import recovered
from tests.support.daemon import Daemon

LOSSES = [2.0, 3.0, math.nan, 1.0, 0.5, 4.0]


async def trained(advisor: Any, task: str) -> Any:
    """Return a run that has observed, stored."""
    run = await done(advisor.run(task, policy="constant", base_lr=0.5))
    for step, loss in enumerate(LOSSES):
        if step in (1, 4):
            run.validate(step, 10.0 + step)
        signals = Signals(grad_norm2=float(step)) if step in (2, 3, 5) else None
        await done(run.observe(step, loss, signals=signals).lr())
    await done(advisor.get_run(run.id))  # which stores it
    return run


async def test_a_summary_has_what_was_observed(asking: Any) -> None:
    """Losses, learning rates, signals and validation losses come by bucket, and the cursor leads on."""
    run = await trained(asking, "summary")
    found = await done(asking.summary(run.id, max_buckets=3))
    assert (found.first_step, found.steps_per_bucket, found.end_step) == (0, 2, 6)
    assert found.run == await done(asking.get_run(run.id))
    assert (found.min_losses, found.max_losses) == ((2.0, 1.0, 0.5), (3.0, 1.0, 4.0))
    assert found.mean_losses == (2.5, 1.0, 2.25)
    assert found.min_learning_rates == found.max_learning_rates == found.mean_learning_rates == (0.5,) * 3
    assert found.held == (0, 1, 0)
    assert found.signals == {"grad_norm2": ((1, 2.5), (2, 5.0))}
    told = [(one.step, one.loss, one.observed_step) for one in found.validations]
    assert told == [(1, 11.0, 0), (4, 14.0, 4)]
    assert (found.updates, found.restores, found.restored, found.has_more) == ((), (), (), False)
    for step in (6, 7):
        await done(run.observe(step, 1.5).lr())
    await done(asking.get_run(run.id))
    more = await done(asking.summary(run.id, cursor=found.cursor))
    assert (more.first_step, more.mean_losses) == (4, (2.25, 1.5))
    part = await done(asking.summary(run.id, from_step=3, to_step=5))
    assert (part.first_step, part.max_losses) == (3, (1.0, 0.5))


async def test_samples_are_by_run(asking: Any) -> None:
    """Of each run that exists a few steps come."""
    run = await trained(asking, "samples")
    found = await done(asking.samples([run.id, "nobody"], samples=3))
    assert list(found) == [run.id]
    assert found[run.id].steps[0] == 0
    assert found[run.id].steps[-1] == 5
    assert found[run.id].losses[0] == 2.0
    assert found[run.id].learning_rates == (0.5,) * 3


async def test_events_tell_what_happened(asking: Any, real: Daemon) -> None:
    """A run that another process takes over and rewinds has both events, with their steps and times."""
    run = await trained(asking, "events")
    assert await done(asking.run_events(run.id)) == ()
    before = (await done(asking.get_run(run.id))).create_time
    with mlrs.connect(real.address, timeout_s=20.0) as other:
        other.run("events", id=run.id, resume_from=4).open()
    rewound, taken = events = await done(asking.run_events(run.id))
    assert (rewound.number, rewound.kind) == (1, RunEventKind.REWOUND)
    assert (rewound.step, rewound.from_step, rewound.count) == (4, 6, None)
    assert (taken.number, taken.kind, taken.step) == (2, RunEventKind.TAKEN_OVER, 4)
    assert before <= rewound.time <= taken.time
    assert await done(asking.run_events(run.id, after=1)) == events[1:]


async def test_wrong_arguments_are_named(asking: Any) -> None:
    """What cannot be asked is refused by the argument's name, and a run that is not there as such."""
    with pytest.raises(RunNotFoundError):
        await done(asking.summary("nobody"))
    with pytest.raises(RunNotFoundError):
        await done(asking.run_events("nobody"))
    wrong = [
        ("summary", "nobody", {"max_buckets": 4097}, "max_buckets"),
        ("summary", "nobody", {"from_step": -1}, "from_step"),
        ("summary", "nobody", {"to_step": 1.5}, "to_step"),
        ("summary", "nobody", {"cursor": 3}, "cursor"),
        ("samples", "nobody", {}, "ids"),
        ("samples", ["a b"], {}, "ids"),
        ("samples", ["a"], {"samples": 1}, "samples"),
        ("run_events", "nobody", {"after": -1}, "after"),
    ]
    for method, about, options, name in wrong:
        with pytest.raises(InvalidArgumentError) as caught:
            await done(getattr(asking, method)(about, **options))
        assert caught.value.field == name


# ------------------------------------------------------------------------------- fallback


async def test_the_daemon_is_told_of_the_fallback(connect: Any, daemon: FakeDaemon) -> None:
    """A run that is opened again tells which steps the fallback answered, once for each outage."""
    advisor = connect(daemon.target, timeout_s=10.0)
    run = await done(advisor.run("task", id="a"))
    sweep = await done(advisor.sweep(["b", "c"]))
    step = 0
    for missed in (3, 2):
        await done(run.observe(step, 1.0).lr())
        await done(sweep.next_lrs(step, [1.0, 1.0], timeout_s=10.0))
        await asyncio.to_thread(daemon.stop)
        for at in range(step + 1, step + 1 + missed):
            await done(run.observe(at, 1.0).lr(timeout_s=0.1))
            await done(sweep.next_lrs(at, [1.0, 1.0], timeout_s=0.1))
        step += 1 + missed
        await asyncio.to_thread(daemon.start)
        await recovered(run)
        await recovered(sweep)
    for name in "abc":
        told = [(first, count) for run_id, first, count in daemon.fallbacks if run_id == name]
        assert told == [(1, 3), (5, 2)]
    await done(advisor.close())


async def test_an_answer_that_is_lost_has_it_told_again(connect: Any, daemon: FakeDaemon) -> None:
    """What a call told whose answer did not come is told again, from the same step on."""
    advisor = connect(daemon.target, timeout_s=10.0)
    run = await done(advisor.run("task", id="a"))
    await done(run.observe(0, 1.0).lr())
    await asyncio.to_thread(daemon.stop)
    await done(run.observe(1, 1.0).lr(timeout_s=0.1))
    daemon.lost_answers = 1
    await asyncio.to_thread(daemon.start)
    await recovered(run)
    assert daemon.fallbacks == [("a", 1, 1)] * 2
    await done(advisor.close())


@pytest.mark.slow
async def test_the_events_of_a_run_say_so(connect: Any, tmp_path: Path) -> None:
    """After a crash of a real daemon the run's events have the steps that the fallback answered."""
    with Daemon(tmp_path / "data") as daemon:
        advisor = connect(daemon.address, timeout_s=20.0)
        run = await done(advisor.run("task", policy="constant", base_lr=0.5))
        for step in range(7):
            if step == 4:
                daemon.kill()
            await done(run.observe(step, 1.0).lr(timeout_s=20.0 if step < 4 else 0.2))
        daemon.start()
        await recovered(run)
        (event,) = await done(advisor.run_events(run.id))
        assert (event.kind, event.step, event.count) == (RunEventKind.FALLBACK, 4, 3)
        await done(advisor.close())


def test_steps_that_come_while_the_daemon_is_told_are_told_next() -> None:
    """Only what a daemon was told of counts as told."""
    standby = Standby(fallback_of("last", []))
    standby.last_lr = 0.1
    assert standby.untold is None
    for step in (5, 6, 7):
        standby.answer(Entry(step, 1.0), -1)
    standby.told(FallbackSteps(5, 2))
    assert standby.untold == FallbackSteps(7, 1)
    standby.told(None)
    standby.answer(Entry(8, 1.0), -1)
    standby.told(FallbackSteps(7, 2))
    assert (standby.untold, standby.steps) == (None, 4)
