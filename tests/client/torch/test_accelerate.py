"""`AdvisedLR` under Accelerate, with the real one, on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import mlrs
from tests.support.daemon import Daemon
from tests.support.frameworks import framework

accelerate = framework("accelerate")
from tests.support.trainings.accelerated import ACCUMULATION, BATCHES, UPDATES, Training  # noqa: E402

EPOCHS = 3
WARMUP = 6
"""The steps in which a run of this horizon rises to the learning rate that was found."""


@pytest.fixture(autouse=True)
def _no_state() -> Iterator[None]:
    """Let each test begin as a process does: Accelerate's state is one for a process."""
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def real_daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A real daemon."""
    with Daemon(tmp_path / "data") as daemon:
        yield daemon


def anew(advisor: mlrs.Advisor, task: str) -> Training:
    """Return a training that nothing is left of the one before it for."""
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    return Training(advisor, task)


def recorded(advisor: mlrs.Advisor, training: Training) -> tuple[list[float], list[float]]:
    """Return the losses and the learning rates of a training's record."""
    assert training.scheduler.run is not None
    chunks = list(advisor.watch(training.scheduler.run.id))
    return [loss for chunk in chunks for loss in chunk.losses], [
        lr for chunk in chunks for lr in chunk.learning_rates
    ]


def test_accumulated_updates(real_daemon: Daemon) -> None:
    """Each update has the advice for the mean loss of its own micro-batches, also of a short last group."""
    with mlrs.connect(real_daemon.address, timeout_s=30.0) as advisor:
        training = anew(advisor, "task")
        for _ in range(2):
            training.epoch()
        training.scheduler.finish()
        losses, lrs = recorded(advisor, training)
    means = []
    for epoch in range(2):
        micro = training.losses[epoch * BATCHES : (epoch + 1) * BATCHES]
        groups = [micro[at : at + ACCUMULATION] for at in range(0, BATCHES, ACCUMULATION)]
        means += [sum(group) / len(group) for group in groups]
    assert losses == pytest.approx(means, rel=1e-12)
    assert len(training.lrs) == 2 * UPDATES
    assert training.lrs == lrs


@pytest.mark.parametrize("with_kill", [False, True])
def test_an_interrupted_training_equals_an_undisturbed_one(
    real_daemon: Daemon, tmp_path: Path, *, with_kill: bool
) -> None:
    """A training that continues from `save_state` has the same learning rates and weights, to the bit."""
    with mlrs.connect(real_daemon.address, timeout_s=30.0) as advisor:
        whole = anew(advisor, "task")
        for _ in range(EPOCHS):
            whole.epoch()
    with mlrs.connect(real_daemon.address, timeout_s=30.0) as advisor:
        first = anew(advisor, "task")
        first.epoch()
        first.accelerator.save_state(str(tmp_path / "checkpoint"))
        first.epoch()  # is lost
    if with_kill:
        real_daemon.kill()
        real_daemon.start()
    with mlrs.connect(real_daemon.address, timeout_s=30.0) as advisor:
        second = anew(advisor, "task")
        second.accelerator.load_state(str(tmp_path / "checkpoint"))
        for _ in range(EPOCHS - 1):
            second.epoch()
        assert first.lrs[:UPDATES] + second.lrs == whole.lrs
        assert torch.equal(second.weights(), whole.weights())
        assert recorded(advisor, second) == recorded(advisor, whole)
        assert len(list(advisor.runs("task"))) == 2


def test_a_search_before_training(real_daemon: Daemon) -> None:
    """A search on a prepared model and optimizer puts everything back, and training rises to its rate."""
    with mlrs.connect(real_daemon.address, timeout_s=30.0) as advisor:
        training = anew(advisor, "task")
        before = training.weights().clone()
        result = training.scheduler.search(
            training.model,
            lambda model, batch: nn.functional.mse_loss(model(batch[0]), batch[1]),
            list(training.loader) * 2,
            always=True,
        )
        assert result.trials
        assert torch.equal(training.weights(), before)
        training.epoch()
        rising = [result.learning_rate * (step + 1) / WARMUP for step in range(UPDATES)]
        assert training.lrs == pytest.approx(rising, rel=1e-6)


@pytest.mark.timeout(300)
def test_several_processes(real_daemon: Daemon, tmp_path: Path) -> None:
    """Two processes take one step an update, alike, and continue alike from a checkpoint."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ran = subprocess.run(
        [*command, "-m", "tests.support.trainings.accelerated", real_daemon.address, str(tmp_path / "saved")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines()]
    first, second = ([lr for rank, lr in lines if rank == str(which)] for which in range(2))
    assert first == second
    with mlrs.connect(real_daemon.address, timeout_s=30.0) as advisor:
        (info,) = advisor.runs("ranks")
        recorded_lrs = [lr.hex() for chunk in advisor.watch(info.id) for lr in chunk.learning_rates]
    assert first == recorded_lrs
