"""Many threads on one advisor."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import mlrs
from mlrs.transport.links import Links
from tests.client.fake_daemon import FakeDaemon, lr_sequence
from tests.support.runs import open_run


def _train(advisor: mlrs.Advisor, run_id: str, steps: int) -> bool:
    """Observe a run's own losses, some ahead, and return whether its learning rates are right."""
    chance = random.Random(run_id)  # noqa: S311 # not a secret
    losses = [chance.gauss(1.0, 1.0) for _ in range(steps)]
    lrs: list[float] = []
    with advisor.run("task", id=run_id, on_existing="resume") as run:
        while len(lrs) < steps:
            ahead = losses[len(lrs) : len(lrs) + chance.choice([1, 1, 2, 5])]
            pendings = [run.observe(step, loss) for step, loss in enumerate(ahead, len(lrs))]
            lrs += [pending.lr() for pending in pendings]
    return lrs == lr_sequence(losses)


def test_runs_do_not_mix(advisor: mlrs.Advisor) -> None:
    """Runs of many threads share one stream, and each gets its own learning rates."""
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda index: _train(advisor, f"run-{index}", 60), range(8)))


def test_runs_survive_a_daemon_that_keeps_failing(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """Streams cut, drained and left by the daemon, at any moment, change no learning rate."""
    chance = random.Random(0)  # noqa: S311 # not a secret
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(_train, advisor, f"run-{index}", 150) for index in range(4)]
        while not all(result.done() for result in results):
            chance.choice([daemon.cut, daemon.drain, daemon.lose])()
            time.sleep(chance.uniform(0.0, 0.05))
        assert all(result.result() for result in results)


def test_threads_share_a_run(advisor: mlrs.Advisor) -> None:
    """Threads that observe the same losses of the same run get the same learning rates."""
    losses = [1.0 / (1 + step) for step in range(50)]
    run = open_run(advisor, "shared")
    start = threading.Barrier(4)

    def follow(_: int) -> list[float]:
        start.wait()
        return [run.next_lr(step, loss) for step, loss in enumerate(losses)]

    with ThreadPoolExecutor(4) as pool:
        assert all(lrs == lr_sequence(losses) for lrs in pool.map(follow, range(4)))


def test_closing_frees_every_thread(daemon: FakeDaemon) -> None:
    """Threads that wait while another closes the advisor raise, and none hangs."""
    advisor = mlrs.connect(daemon.target, timeout_s=0.3)
    daemon.may_answer.clear()
    runs = [open_run(advisor, f"run-{index}", timeout_s=10.0) for index in range(4)]
    waiting = threading.Semaphore(0)

    def wait(run: mlrs.Run) -> None:
        pending = run.observe(0, 1.0)
        waiting.release()
        pending.lr(timeout_s=60.0)

    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(wait, run) for run in runs]
        for _ in runs:
            waiting.acquire()
        advisor.close()
        for result in results:
            with pytest.raises(mlrs.errors.ClosedError):
                result.result(timeout=10.0)


def test_abandoned_watch(daemon: FakeDaemon) -> None:
    """A watch that follows a run ends when the advisor is closed, and may be left half-way."""
    advisor = mlrs.connect(daemon.target, timeout_s=10.0)
    open_run(advisor, "a").next_lr(0, 1.0)
    left = advisor.watch("a", follow=True)
    assert next(left).first_step == 0
    left.close()  # type: ignore[attr-defined] # a generator
    followed = advisor.watch("a", follow=True)
    assert [len(next(followed).losses) for _ in range(2)] == [0, 1]
    closer = threading.Timer(0.05, advisor.close)
    closer.start()
    with pytest.raises(mlrs.errors.ClosedError):
        next(followed)
    closer.join()


def test_calls_are_made_in_threads_of_the_client(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread of the user's calls gRPC, where Ctrl-C would break it: not at first, not on the way back."""
    callers: set[str] = set()
    method = Links.method

    def noted(self: Links, address: str, name: str) -> Any:
        callers.add(threading.current_thread().name)
        return method(self, address, name)

    monkeypatch.setattr(Links, "method", noted)
    with mlrs.connect(daemon.target, timeout_s=10.0) as advisor:
        run = open_run(advisor, "a")
        for step in range(20):
            if step % 5 == 4:
                daemon.cut()
            run.next_lr(step, 1.0)
        assert sum(len(chunk.losses) for chunk in advisor.watch("a")) == 20
        run.finish()
    assert callers == {"mlrs", "mlrs-watch"}
