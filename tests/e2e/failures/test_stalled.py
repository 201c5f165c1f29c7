"""A daemon that is stopped, as by a debugger or a machine that swaps: training goes on as if it ran."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

import mlrs
from mlrs.torch import AdvisedLR
from tests.support.daemon import Daemon, write_random_model
from tests.support.runs import open_run

STEPS = 2000


def loss_of(step: int) -> float:
    """Return the loss of a step."""
    return 3.0 / (1.0 + 0.01 * step)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A real daemon."""
    model = write_random_model(tmp_path / "tiny.safetensors")
    with Daemon(tmp_path / "data", "--model", str(model)) as daemon:
        yield daemon


@contextmanager
def stopped(daemon: Daemon) -> Iterator[None]:
    """Stop the daemon's process, and let it go on at the end."""
    daemon.signal(signal.SIGSTOP)
    os.waitid(os.P_PID, daemon.pid, os.WSTOPPED)
    try:
        yield
    finally:
        daemon.signal(signal.SIGCONT)


def undisturbed(advisor: mlrs.Advisor, steps: int) -> list[float]:
    """Return the learning rates of a run whose daemon nobody stops."""
    run = open_run(advisor, "undisturbed", horizon=STEPS, num_classes=10)
    return [pending.lr() for pending in [run.observe(step, loss_of(step)) for step in range(steps)]]


def test_observing_does_not_wait(daemon: Daemon) -> None:
    """Thousands of observations are taken while the daemon answers none; then their advice is exact."""
    with mlrs.connect(daemon.address, timeout_s=60.0) as advisor:
        run = open_run(advisor, "a", horizon=STEPS, num_classes=10)
        first = run.next_lr(0, loss_of(0))
        with stopped(daemon):
            pendings = [run.observe(step, loss_of(step)) for step in range(1, STEPS)]
            assert not any(pending.done() for pending in pendings)
        assert [first, *(pending.lr() for pending in pendings)] == undisturbed(advisor, STEPS)


def test_a_lagged_loop_does_not_wait(daemon: Daemon) -> None:
    """A lagged training takes hundreds of steps while the daemon is stopped, at the newest advice."""
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with mlrs.connect(daemon.address, timeout_s=60.0) as advisor:
        run = open_run(advisor, "a", horizon=STEPS, num_classes=10)
        scheduler = AdvisedLR(optimizer, run, lagged=True)

        def train(step: int) -> float:
            scheduler.observe(loss_of(step))
            optimizer.step()
            scheduler.step()
            return float(optimizer.param_groups[0]["lr"])

        lr = train(0)
        with stopped(daemon):
            assert {train(step) for step in range(1, 500)} == {lr}
            assert run.newest_lr(before=500) == lr
        scheduler.finish()
        recorded = [rate for chunk in advisor.watch("a") for rate in chunk.learning_rates]
        assert recorded == undisturbed(advisor, 500)
