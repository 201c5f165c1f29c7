"""Waiting for answers: deadlines, interrupts, and threads beside each other."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType

import pytest

import mlrs
from tests.client.fake_daemon import FakeDaemon, lr_sequence
from tests.support.runs import open_run

LOSSES = [2.0, 1.5, 1.2, 1.0, 0.9, 0.8]


class Interrupted(BaseException):
    """What the signal handler of these tests raises, as that of Ctrl-C does `KeyboardInterrupt`."""


@contextmanager
def interrupts() -> Iterator[None]:
    """Have the alarm interrupt the main thread; `signal.setitimer` sets it."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("patience_s", [0.2, 0.7])
def test_deadlines(daemon: FakeDaemon, patience_s: float) -> None:
    """A daemon that stalls is waited for as long as asked; then all continues, unchanged."""
    with mlrs.connect(daemon.target, timeout_s=10.0) as advisor:
        run = open_run(advisor, "a", fallback=None)
        lrs = [run.next_lr(step, loss) for step, loss in enumerate(LOSSES[:3])]
        daemon.may_answer.clear()
        began = time.monotonic()
        with pytest.raises(mlrs.errors.DeadlineExceededError, match="observations are kept"):
            run.next_lr(3, LOSSES[3], timeout_s=patience_s)
        assert patience_s <= time.monotonic() - began < patience_s + 1.0
        daemon.may_answer.set()
        lrs += [run.next_lr(step, loss) for step, loss in enumerate(LOSSES[3:], 3)]
    assert lrs == lr_sequence(LOSSES)


def test_an_interrupt_while_waiting_costs_nothing(daemon: FakeDaemon) -> None:
    """Ctrl-C while waiting leaves the run as it is: the step can be asked for again, and continues right."""
    with mlrs.connect(daemon.target, timeout_s=10.0) as advisor, interrupts():
        run = open_run(advisor, "a")
        lrs = [run.next_lr(step, loss) for step, loss in enumerate(LOSSES[:2])]
        daemon.may_answer.clear()
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupted):
            run.next_lr(2, LOSSES[2])
        daemon.may_answer.set()
        lrs += [run.next_lr(step, loss) for step, loss in enumerate(LOSSES[2:], 2)]
    assert lrs == lr_sequence(LOSSES)


def test_threads_wait_beside_each_other(daemon: FakeDaemon) -> None:
    """Threads that wait on one stream get their answers, in whatever order they came."""
    with mlrs.connect(daemon.target, timeout_s=10.0) as advisor:
        runs = [open_run(advisor, f"run-{index}") for index in range(6)]
        for _ in range(20):
            daemon.may_answer.clear()
            start = threading.Barrier(len(runs))

            def follow(run: mlrs.Run, start: threading.Barrier = start) -> float:
                start.wait()
                return run.next_lr(run.next_step, 1.0)

            with ThreadPoolExecutor(len(runs)) as pool:
                results = [pool.submit(follow, run) for run in runs]
                daemon.may_answer.set()
                assert len({result.result(timeout=10.0) for result in results}) == 1


def test_a_known_answer_waits_for_nobody(daemon: FakeDaemon) -> None:
    """A step that was answered before is answered at once, though another run waits for the daemon."""
    with mlrs.connect(daemon.target, timeout_s=30.0) as advisor:
        known, waiting = open_run(advisor, "known"), open_run(advisor, "waiting")
        lr = known.next_lr(0, 1.0)
        daemon.may_answer.clear()
        waiting.observe(0, 1.0)
        began = time.monotonic()
        assert known.next_lr(0, 1.0) == lr
        assert time.monotonic() - began < 10.0
        daemon.may_answer.set()
