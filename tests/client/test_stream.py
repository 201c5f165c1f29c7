"""Whoever waits for an answer may read it: deadlines, interrupts, and threads that take turns."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType

import pytest

import mlrs_client
from mlrs_client import _stream
from tests.client.fake_daemon import FakeDaemon, lr_sequence

LOSSES = [2.0, 1.5, 1.2, 1.0, 0.9, 0.8]


class Interrupted(BaseException):
    """What the signal handler of these tests raises, as that of Ctrl-C does `KeyboardInterrupt`."""


@contextmanager
def interrupt_after(seconds: float) -> Iterator[None]:
    """Interrupt the main thread so much later."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("patience_s", [_stream.LEAST_PATIENCE_S / 2, _stream.LEAST_PATIENCE_S * 1.5])
def test_deadlines(daemon: FakeDaemon, patience_s: float) -> None:
    """A daemon that stalls is waited for as long as asked, by whoever reads; then all goes on, unchanged."""
    with mlrs_client.connect(daemon.target, timeout_s=10.0) as advisor:
        run = advisor.run("a")
        lrs = [run.next_lr(step, loss) for step, loss in enumerate(LOSSES[:3])]
        daemon.gate.clear()
        began = time.monotonic()
        with pytest.raises(mlrs_client.DeadlineExceededError, match="observations are kept"):
            run.next_lr(3, LOSSES[3], timeout_s=patience_s)
        assert patience_s <= time.monotonic() - began < patience_s + 1.0
        daemon.gate.set()
        lrs += [run.next_lr(step, loss) for step, loss in enumerate(LOSSES[3:], 3)]
    assert lrs == lr_sequence(LOSSES)


def test_an_interrupt_costs_nothing(daemon: FakeDaemon) -> None:
    """Ctrl-C while waiting leaves the run as it is: the step can be asked for again, and goes on right."""
    with mlrs_client.connect(daemon.target, timeout_s=10.0) as advisor:
        run = advisor.run("a")
        lrs = [run.next_lr(step, loss) for step, loss in enumerate(LOSSES[:2])]
        daemon.gate.clear()
        with pytest.raises(Interrupted), interrupt_after(0.1):
            run.next_lr(2, LOSSES[2])
        daemon.gate.set()
        lrs += [run.next_lr(step, loss) for step, loss in enumerate(LOSSES[2:], 2)]
    assert lrs == lr_sequence(LOSSES)


def test_a_thread_that_leaves_hands_over(daemon: FakeDaemon) -> None:
    """When the thread that reads has its answer, those still waiting for theirs get them too."""
    with mlrs_client.connect(daemon.target, timeout_s=10.0) as advisor:
        runs = [advisor.run(f"run-{index}") for index in range(6)]
        for _ in range(20):
            daemon.gate.clear()
            start = threading.Barrier(len(runs))

            def follow(run: mlrs_client.Run, start: threading.Barrier = start) -> float:
                start.wait()
                return run.next_lr(run.resume_step, 1.0)

            with ThreadPoolExecutor(len(runs)) as pool:
                results = [pool.submit(follow, run) for run in runs]
                daemon.gate.set()
                assert len({result.result(timeout=10.0) for result in results}) == 1


def test_a_waiting_thread_is_the_reader(advisor: mlrs_client.Advisor) -> None:
    """In a loop that waits, answers are read by the loop's own thread; behind other work, by the stream's."""
    readers: list[str] = []
    read = _stream.AdviceStream._read_message

    def noted(stream: _stream.AdviceStream) -> None:
        readers.append(threading.current_thread().name)
        read(stream)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_stream.AdviceStream, "_read_message", noted)
        run = advisor.run("a")
        for step in range(20):
            run.next_lr(step, 1.0)
        assert readers.count("MainThread") >= 15
        readers.clear()
        pending = run.observe(20, 1.0)
        while not pending.done():
            threading.Event().wait(0.001)
        assert readers == ["mlrs-advice"]
