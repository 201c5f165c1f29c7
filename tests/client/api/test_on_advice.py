"""`on_advice`: a function that is told each step of a run, in the background, as far as it keeps up."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

import mlrs
from mlrs.adapters import RunState
from mlrs.transport import listener as listening
from mlrs.types import AdvisedStep
from tests.client.conftest import done, until
from tests.client.fake_daemon import FakeDaemon, lr_sequence
from tests.client.transport.test_forks import check_children

LOSSES = [1.0, 0.5, float("nan"), 0.25, -2.0]


class Told:
    """Notes what it is told, and where; waits while `may_go` is not set."""

    def __init__(self) -> None:
        self.steps: list[AdvisedStep] = []
        self.threads: set[int] = set()
        self.flushes: list[int] = []
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, step: AdvisedStep) -> None:
        """Note a step."""
        self.may_go.wait(30.0)
        self.threads.add(threading.get_ident())
        self.steps.append(step)

    def flush(self) -> None:
        """Note how many steps there were."""
        self.flushes.append(len(self.steps))

    @property
    def numbers(self) -> list[int]:
        """The steps' numbers, as they came."""
        return [told.step for told in self.steps]

    @property
    def reasons(self) -> list[str]:
        """Their reasons."""
        return [str(told.reason) for told in self.steps]


async def test_every_step_is_told_in_order(either: Any) -> None:
    """After `finish`, every step was told once, in order and in one thread, and the function flushed."""
    told = Told()
    run = await done(either.run("task", id="a", on_advice=told))
    lrs = [await done(run.next_lr(step, loss)) for step, loss in enumerate(LOSSES)]
    assert run.untold_steps == 0
    await done(run.finish())
    assert [(step.run_id, step.step, step.learning_rate) for step in told.steps] == [
        ("a", step, lr) for step, lr in enumerate(lrs)
    ]
    assert repr([step.loss for step in told.steps]) == repr(LOSSES)
    assert told.reasons == ["fresh", "fresh", "held", "fresh", "fresh"]
    assert len(told.threads - {threading.get_ident()}) == 1
    assert told.flushes == [5]


async def test_leaving_a_run_and_closing_the_advisor_tell_the_rest(connect: Any, daemon: FakeDaemon) -> None:
    """The end of a `with` block, and that of the advisor, wait until the function was told what is there."""
    told, later = Told(), Told()
    advisor = connect(daemon.target, timeout_s=10.0)
    opening = advisor.run("task", on_advice=told)
    if connect is mlrs.connect:
        with opening as run:
            run.next_lr(0, 1.0)
    else:
        async with opening as run:
            await run.next_lr(0, 1.0)
    assert told.numbers == [0]
    run = await done(advisor.run("task", on_advice=later))
    for step, loss in enumerate(LOSSES):
        await done(run.next_lr(step, loss))
    await done(advisor.close())
    assert later.numbers == [0, 1, 2, 3, 4]


def test_a_slow_function_delays_no_step(
    advisor: mlrs.Advisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While the function hangs, training goes on; what is too much is counted, and logged once."""
    monkeypatch.setattr(listening, "MAX_WAITING", 8)
    told = Told()
    told.may_go.clear()
    run = advisor.run("task", id="slow", on_advice=told)
    lrs = [run.next_lr(step, 1.0 / (1 + step)) for step in range(50)]
    assert lrs == lr_sequence([1.0 / (1 + step) for step in range(50)])
    assert told.steps == []
    assert run.untold_steps >= 41
    told.may_go.set()
    run.finish()
    assert told.numbers == list(range(50 - run.untold_steps))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "does not keep up" in record.message


def test_a_function_that_hangs_does_not_hang_the_end(daemon: FakeDaemon) -> None:
    """`finish` and `close` end, though the function never returns from its first step."""
    told = Told()
    told.may_go.clear()
    with mlrs.connect(daemon.target, timeout_s=0.5) as advisor:
        run = advisor.run("task", on_advice=told, timeout_s=10.0)
        run.next_lr(0, 1.0, timeout_s=10.0)
        assert run.finish(timeout_s=10.0) is not None
    assert told.steps == []
    told.may_go.set()


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_errors_are_logged_once(
    advisor: mlrs.Advisor, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    """An error of the function never reaches training; the first is logged with its traceback."""
    seen: list[int] = []

    def fails(step: AdvisedStep) -> None:
        seen.append(step.step)
        raise error("no disk")

    run = advisor.run("task", on_advice=fails)
    for step in range(5):
        run.next_lr(step, 1.0)
    run.finish()
    assert seen == [0, 1, 2, 3, 4]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "no disk" in caplog.text


def test_a_function_may_use_its_run(advisor: mlrs.Advisor) -> None:
    """A function that finishes the run itself, when it has seen enough, waits for nothing."""
    finished = threading.Event()

    def ends(step: AdvisedStep) -> None:
        if step.step == 2:
            run.finish()
            finished.set()

    run = advisor.run("task", id="ends", on_advice=ends)
    for step in range(3):
        run.next_lr(step, 1.0)
    assert finished.wait(10.0)
    assert advisor.get_run("ends").status == "finished"


def test_what_the_fallback_answers_is_told_once(daemon: FakeDaemon) -> None:
    """Steps of an outage are told with the reason `fallback`, and not again when the daemon is back."""
    told = Told()
    with mlrs.connect(daemon.target, timeout_s=0.2) as advisor:
        run = advisor.run("task", initial_lr=0.3, on_advice=told, timeout_s=10.0)
        run.next_lr(0, 1.0, timeout_s=10.0)
        daemon.may_answer.clear()
        for step in (1, 2):
            run.next_lr(step, 1.0)
        daemon.may_answer.set()
        run.finish(timeout_s=10.0)
    assert told.numbers == [0, 1, 2]
    assert told.reasons == ["fresh", "fallback", "fallback"]
    assert {step.learning_rate for step in told.steps} == {told.steps[0].learning_rate}


def test_trouble_repeats_and_loses_nothing(daemon: FakeDaemon) -> None:
    """Streams that are cut, and answers that a daemon forgets, change nothing of what is told."""
    told = Told()
    losses = [1.0 / (1 + step) for step in range(120)]
    with mlrs.connect(daemon.target, timeout_s=10.0) as advisor:
        run = advisor.run("task", on_advice=told)
        for step, loss in enumerate(losses):
            pending = run.observe(step, loss, lagged=step % 3 == 0)
            if step % 10 == 5:
                (daemon.cut, daemon.drain, daemon.lose)[step // 10 % 3]()
            pending.lr()
        run.finish()
    assert told.numbers == list(range(120))
    assert [step.learning_rate for step in told.steps] == lr_sequence(losses)
    assert set(told.reasons) <= {"fresh", "replayed"}


def test_what_a_lagged_loop_left_behind_is_left_out(daemon: FakeDaemon) -> None:
    """Steps without an answer when the fallback answers a later one are not told after it."""
    told = Told()
    with mlrs.connect(daemon.target, timeout_s=0.2) as advisor:
        run = advisor.run("task", initial_lr=0.3, on_advice=told, timeout_s=10.0)
        run.next_lr(0, 1.0, timeout_s=10.0)
        daemon.may_answer.clear()
        pendings = [run.observe(step, 1.0) for step in range(1, 4)]
        pendings[2].lr()
        daemon.may_answer.set()
        run.finish(timeout_s=10.0)
    assert told.numbers == [0, 3]
    assert told.reasons == ["fresh", "fallback"]


def test_what_a_run_replays_is_told_as_replayed(advisor: mlrs.Advisor) -> None:
    """Steps that the daemon answers from its record are told with the reason `replayed`."""
    first = advisor.run("task", id="again")
    lrs = [first.next_lr(step, loss) for step, loss in enumerate(LOSSES)]
    told = Told()
    again = advisor.run("task", id="again", on_existing="resume", on_advice=told).open()
    assert [again.next_lr(step, loss) for step, loss in enumerate(LOSSES)] == lrs
    again.next_lr(5, 0.1)
    again.finish()
    assert [step.learning_rate for step in told.steps[:5]] == lrs
    assert told.reasons == ["replayed"] * 5 + ["fresh"]


def test_a_resumed_run_is_told_from_its_checkpoint_on(advisor: mlrs.Advisor) -> None:
    """After `resume`, the steps from the checkpoint on are told, as of the run that is continued."""
    other = advisor.run("task", id="other")
    for step in range(4):
        other.next_lr(step, 1.0)
        if step == 1:
            state = other.state()
    told = Told()
    run = advisor.run("task", id="mine", on_advice=told)
    run.next_lr(0, 1.0)
    run.resume(state)
    for step in (2, 3):
        run.next_lr(step, 0.5)
    run.finish()
    assert [(step.run_id, step.step) for step in told.steps] == [("mine", 0), ("other", 2), ("other", 3)]


@pytest.mark.parametrize("step", [1, 3])
async def test_a_run_that_goes_on_after_its_end_is_told(either: Any, step: int) -> None:
    """After `finish` and `resume`, at its last step or an earlier one, the steps from there on are told."""
    told = Told()
    run = await done(either.run("task", id="a", on_advice=told))
    for before in range(3):
        await done(run.next_lr(before, 1.0))
    await done(run.finish())
    await done(run.resume(RunState("a", step)))
    for after in range(step, 5):
        await done(run.next_lr(after, 0.5))
    await done(run.finish())
    assert told.numbers == [0, 1, 2, *range(step, 5)]
    assert [one.loss for one in told.steps] == [1.0] * 3 + [0.5] * (5 - step)


async def test_threads_end_with_their_runs(advisor: mlrs.Advisor) -> None:
    """The thread of a run ends when the run is finished."""

    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "mlrs-on-advice"]

    run = advisor.run("task", on_advice=Told())
    run.next_lr(0, 1.0)
    assert threads()
    run.finish()
    await until(lambda: not threads())


def test_it_must_be_callable(advisor: mlrs.Advisor) -> None:
    """Anything but a function is refused at once, by name."""
    with pytest.raises(mlrs.errors.InvalidArgumentError, match="on_advice must be a function") as raised:
        advisor.run("task", on_advice="print")  # type: ignore[typeddict-item]  # the mistake that is tested
    assert raised.value.field == "on_advice"


FORKING = """
import os, signal, sys
import mlrs

with mlrs.connect(sys.argv[1], timeout_s=10.0) as advisor:
    told = []
    run = advisor.run("task", on_advice=told.append)
    for step in range(5):
        run.next_lr(step, 1.0)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            run.detach()
            advisor.close()
            sys.exit(0)
        print(os.waitpid(child, 0)[1], flush=True)
    run.finish()
assert [step.step for step in told] == [0, 1, 2, 3, 4], told
"""


def test_forked_children_tell_nothing(daemon: FakeDaemon) -> None:
    """A child forked beside the thread leaves the run, closes and exits at once, and the parent goes on."""
    check_children(FORKING, daemon, 5)


def test_a_script_that_closes_nothing_is_told_all(daemon: FakeDaemon, tmp_path: Path) -> None:
    """At the exit of Python, what is still waiting is told, within the advisor's deadline."""
    path = tmp_path / "told"
    script = f"""
import sys, time
import mlrs

def note(step):
    time.sleep(0.02)
    with open({str(path)!r}, "a") as file:
        print(step.step, file=file)

run = mlrs.connect(sys.argv[1], timeout_s=10.0).run("task", on_advice=note)
for step in range(20):
    run.next_lr(step, 1.0)
print(0)
"""
    check_children(script, daemon, 1)
    assert path.read_text(encoding="utf-8").split() == [str(step) for step in range(20)]
