"""Signals and validation losses: what a call of a run sends, sends again, keeps in a file, and reads back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlrs
from mlrs.errors import InvalidArgumentError, StaleStepError
from mlrs.types import SignalRecord, Signals, ValidationRecord
from tests.client.conftest import done, until
from tests.client.fake_daemon import Extras, FakeDaemon, lr_sequence
from tests.support.runs import opened

SIGNALS = Signals(update_norm2=0.25, grad_dot_update=-1.5)
SENT = {"update_norm2": 0.25, "grad_dot_update": -1.5}


def known(extras: Extras) -> Extras:
    """Return extras without the signals that are NaN."""
    signals = {name: value for name, value in extras.signals.items() if not math.isnan(value)}
    return Extras(signals, extras.validation)


def recorded(daemon: FakeDaemon, run_id: str = "a") -> dict[int, Extras]:
    """Return what the daemon has recorded of a run besides its losses."""
    return {step: known(extras) for step, extras in daemon.runs[run_id].extras.items()}


async def items(iterator: Any) -> list[Any]:
    """Return what an iterator of either flavour gives."""
    if hasattr(iterator, "__aiter__"):
        return [item async for item in iterator]
    return list(iterator)


async def test_signals_travel_with_their_observation(either: Any, daemon: FakeDaemon) -> None:
    """Each call that observes takes signals; observations without any send none."""
    run = await opened(either, "a")
    await done(run.observe(0, 2.0).lr())
    await done(run.observe(1, 1.5, signals=SIGNALS).lr())
    await done(run.next_lr(2, 1.4, signals=Signals(param_norm2=np.float32(3.0))))
    await done(run.next_lr(3, 1.3, signals=Signals()))
    await done(run.next_lr(4, 1.2, signals=SIGNALS, lagged=True))
    await until(lambda: len(daemon.runs["a"].losses) == 5)
    assert recorded(daemon) == {
        1: Extras(SENT, None),
        2: Extras({"param_norm2": 3.0}, None),
        4: Extras(SENT, None),
    }


async def test_a_validation_loss_travels_with_the_next_observation(either: Any, daemon: FakeDaemon) -> None:
    """Of several that are told between two observations, the newest travels; and it travels once."""
    run = await opened(either, "a")
    run.validate(0, 3.0)
    for step in range(6):
        await done(run.next_lr(step, 2.0))
        if step in (1, 2):
            run.validate(step, 2.5)
            run.validate(step + 1, np.float64(2.25))
            run.validate(step, math.inf)
    assert recorded(daemon) == {
        0: Extras({}, (0, 3.0)),
        2: Extras({}, (1, math.inf)),
        3: Extras({}, (2, math.inf)),
    }


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda run: run.observe(0, 1.0, signals={"update_norm2": 1.0}), "signals"),
        (lambda run: run.observe(0, 1.0, signals=Signals(grad_norm2="large")), "signals.grad_norm2"),  # type: ignore[arg-type]
        (lambda run: run.validate(0, "low"), "loss"),
        (lambda run: run.validate(-1, 1.0), "step"),
        (lambda run: run.validate(2.5, 1.0), "step"),
        (lambda run: run.validate(104, 1.0), "step"),
    ],
)
async def test_wrong_arguments_are_named(either: Any, daemon: FakeDaemon, call: Any, field: str) -> None:
    """A wrong value is an error that names the argument, and sends nothing."""
    run = await opened(either, "a")
    for step in range(3):
        await done(run.next_lr(step, 1.0))
    with pytest.raises(InvalidArgumentError) as caught:
        call(run)
    assert caught.value.field == field
    await done(run.next_lr(3, 1.0))
    assert recorded(daemon) == {}


async def test_a_step_is_repeated_with_its_signals_only(either: Any, daemon: FakeDaemon) -> None:
    """A step that is observed again has the same signals, or none; its validation loss is not told again."""
    run = await opened(either, "a", fallback=None)
    run.validate(0, 3.0)
    first = await done(run.next_lr(0, 1.0, signals=SIGNALS))
    assert await done(run.next_lr(0, 1.0, signals=SIGNALS)) == first
    assert await done(run.next_lr(0, 1.0)) == first
    with pytest.raises(StaleStepError, match="step 0 was observed with other signals"):
        await done(run.next_lr(0, 1.0, signals=Signals(update_norm2=0.125)))
    daemon.runs["a"].durable_step = 0
    await done(run.next_lr(1, 1.0))  # the daemon says that step 0 is stored: it is kept no more
    assert await done(run.next_lr(0, 1.0, signals=SIGNALS)) == first
    assert await done(run.next_lr(0, 1.0)) == first
    assert recorded(daemon) == {0: Extras(SENT, (0, 3.0))}


async def test_the_newest_step_is_repeated_after_it_was_stored(either: Any, daemon: FakeDaemon) -> None:
    """A step that the client keeps no more gets the validation loss again that it had."""
    run = await opened(either, "a", fallback=None)
    daemon.runs["a"].durable_step = 5
    run.validate(0, 3.0)
    lr = await done(run.next_lr(0, 1.0, signals=SIGNALS))
    assert not run._ledger.backlog.has_volatile()
    assert await done(run.next_lr(0, 1.0, signals=SIGNALS)) == lr
    run.validate(1, 2.0)  # for step 1, not for a repeated step 0
    assert await done(run.next_lr(0, 1.0, signals=SIGNALS)) == lr
    await done(run.next_lr(1, 1.0))
    assert recorded(daemon) == {0: Extras(SENT, (0, 3.0)), 1: Extras({}, (1, 2.0))}


@pytest.mark.parametrize("ends", ["cut", "restart"])
async def test_extras_are_sent_again_after_a_lost_connection(
    either: Any, daemon: FakeDaemon, ends: str
) -> None:
    """What the daemon lost is sent again with its signals and validation losses, each to its step."""
    run = await opened(either, "a", fallback=None)
    run.validate(0, 3.0)
    pendings = [run.observe(step, 1.0, signals=SIGNALS if step % 2 else None) for step in range(5)]
    for pending in pendings:
        await done(pending.lr())
    before = recorded(daemon)
    getattr(daemon, ends)()
    run.validate(4, 2.0)
    assert await done(run.next_lr(5, 1.0)) == lr_sequence([1.0] * 6)[5]
    assert recorded(daemon) == before | {5: Extras({}, (4, 2.0))}
    assert before == {0: Extras({}, (0, 3.0)), 1: Extras(SENT, None), 3: Extras(SENT, None)}


async def test_a_training_that_ends_without_its_daemon_keeps_extras(
    connect: Any, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """The file of what a daemon lacks has signals and validation losses, and a push sends them."""
    folder = tmp_path / "unsent"
    advisor = connect(daemon.target, timeout_s=0.2, unsent_dir=folder)
    run = await opened(advisor, "a", timeout_s=10.0)
    await done(run.next_lr(0, 2.0))
    daemon.runs["a"].durable_step = 0
    await done(run.next_lr(1, 2.0))
    daemon.stop()
    signals = {2: SIGNALS, 4: Signals(log_relative_update=-0.0, grad_norm2=math.inf)}
    for step in range(2, 6):
        if step == 3:
            run.validate(3, 0.1)
        await done(run.next_lr(step, 1.0, signals=signals.get(step)))
    assert await done(run.finish()) is None
    await done(advisor.close())
    (path,) = folder.iterdir()
    daemon.start()
    other = connect(daemon.target, timeout_s=10.0)
    await done(other.push(path))
    await done(other.close())
    assert recorded(daemon) == {
        2: Extras(SENT, None),
        3: Extras({}, (3, 0.1)),
        4: Extras({"grad_norm2": math.inf, "log_relative_update": -0.0}, None),
    }
    assert math.copysign(1.0, recorded(daemon)[4].signals["log_relative_update"]) == -1.0


async def test_a_run_that_continues_from_a_checkpoint_hands_extras_over(
    either: Any, daemon: FakeDaemon
) -> None:
    """Going back in a process sends the steps before the checkpoint with what came with them."""
    run = await opened(either, "a", fallback=None)
    for step in range(3):
        run.validate(step, float(step))
        await done(run.next_lr(step, 1.0, signals=SIGNALS))
    state = run.state()
    await done(run.next_lr(3, 1.0, signals=SIGNALS))
    await done(run.resume(state))
    await done(run.next_lr(3, 1.0))
    assert recorded(daemon) == {step: Extras(SENT, (step, float(step))) for step in range(3)}


async def test_a_record_has_signals_and_validation_losses(either: Any) -> None:
    """Reading a record gives what came with each step."""
    run = await opened(either, "a")
    await done(run.next_lr(0, 2.0))
    run.validate(0, 3.0)
    await done(run.next_lr(1, 2.0, signals=SIGNALS))
    chunks = await items(either.watch("a"))
    assert [one for chunk in chunks for one in chunk.validations] == [
        ValidationRecord(step=0, loss=3.0, observed_step=1)
    ]
    (found,) = [one for chunk in chunks for one in chunk.signals]
    assert repr(found) == repr(SignalRecord(step=1, signals=SIGNALS))


async def test_a_validation_loss_of_a_step_far_beyond_the_first(either: Any, daemon: FakeDaemon) -> None:
    """Where the first step is not known yet, the first observation says that the validated step is none."""
    run = either.run("task", id="a")
    run = run if isinstance(run, mlrs.Run) else await run
    if run.is_open:  # asyncio opens a run that is awaited
        return
    run.validate(101, 1.0)
    with pytest.raises(InvalidArgumentError, match="at most 100 beyond the step to observe next, 0"):
        run.observe(0, 1.0)
    await done(run.next_lr(0, 1.0))
    assert recorded(daemon) == {}


async def test_sweeps_take_no_signals(either: Any) -> None:
    """A sweep has no argument for signals, and no method for validation losses."""
    sweep = await done(either.sweep(["a", "b"]))
    with pytest.raises(TypeError, match="signals"):
        sweep.observe(0, [1.0, 1.0], signals=SIGNALS)
    assert not hasattr(sweep, "validate")
