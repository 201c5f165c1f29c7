"""Real `torchrun` jobs, DDP over gloo, under one schedule: alike on every rank, whatever befalls one."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

import mlrs
from mlrs_core.config import RunConfig
from mlrs_core.models.checkpoint import read_model
from tests.server.support import replayed
from tests.support.daemon import Daemon, write_random_model

STEPS = 30
SETTINGS = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
"""Without the first, a job that torchrun has restarted looks for the processes of before: PyTorch 2.13 keeps
their addresses in a store that outlives them."""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--monitor-interval=0.1"]
pytestmark = pytest.mark.timeout(300)


class Step(NamedTuple):
    """What a rank saw of a step, as hexadecimal floats."""

    lr: str
    loss: str
    weights: str


@dataclass
class Job:
    """A daemon, and jobs on it."""

    folder: Path
    daemon: Daemon
    model: Path

    def launch(self, ranks: int, *options: str, restarts: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a job to its end."""
        command = [*TORCHRUN, f"--nproc-per-node={ranks}", f"--max-restarts={restarts}"]
        command += ["-m", "tests.support.trainings.ddp", self.daemon.address, str(self.folder), *options]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=240, check=False, env={**os.environ, **SETTINGS}
        )

    def steps(self, rank: int, attempt: int = 0) -> dict[int, Step]:
        """Return what a rank saw, by step."""
        file = self.folder / f"rank-{rank}-{attempt}.txt"
        lines = file.read_text(encoding="ascii").splitlines() if file.exists() else []
        return {int(step): Step(*rest) for step, *rest in map(str.split, lines) if len(rest) == 3}

    def record(self) -> tuple[list[str], list[str]]:
        """Return the losses and the learning rates of the daemon's record."""
        with mlrs.connect(self.daemon.address) as advisor:
            chunks = list(advisor.watch("job"))
        return (
            [loss.hex() for chunk in chunks for loss in chunk.losses],
            [lr.hex() for chunk in chunks for lr in chunk.learning_rates],
        )


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """A daemon, and a folder for a job."""
    model = write_random_model(tmp_path / "tiny.safetensors")
    with Daemon(tmp_path / "data", "--model", str(model)) as daemon:
        yield Job(tmp_path, daemon, model)


def check_alike(job: Job, ranks: int) -> None:
    """Check that all ranks took the same steps, of the record, which is that of an undisturbed run."""
    seen = [job.steps(rank) for rank in range(ranks)]
    losses, lrs = job.record()
    assert all([step.lr for step in some.values()] == lrs for some in seen)
    assert len({tuple(step.weights for step in some.values()) for some in seen}) == 1
    means = [sum(float.fromhex(some[step].loss) for some in seen) / ranks for step in range(STEPS)]
    assert [float.fromhex(loss) for loss in losses] == pytest.approx(means, rel=1e-15)
    policy = read_model(job.model)[0].policy()
    config = RunConfig(horizon=100, num_classes=10)
    expected = replayed(policy, config, [float.fromhex(loss) for loss in losses])
    assert lrs == [lr.hex() for lr in expected.tolist()]


@pytest.mark.parametrize(
    ("ranks", "options"),
    [
        (2, ("--reports", "first", "--accumulate", "3")),
        pytest.param(4, ("--reports", "first"), marks=pytest.mark.slow),
        pytest.param(4, ("--reports", "all"), marks=pytest.mark.slow),
    ],
)
def test_every_rank_updates_alike(job: Job, ranks: int, options: tuple[str, ...]) -> None:
    """All ranks of a job have the same learning rates and weights, to the bit, under DDP and accumulation."""
    done = job.launch(ranks, *options)
    assert done.returncode == 0, done.stderr
    check_alike(job, ranks)


@pytest.mark.parametrize(
    ("reports", "killed"),
    [
        pytest.param("first", 0, marks=pytest.mark.slow),
        pytest.param("first", 1, marks=pytest.mark.slow),
        ("all", 1),
    ],
)
def test_a_killed_job_goes_on_as_if_it_had_not_been(job: Job, reports: str, killed: int) -> None:
    """A rank killed mid-step: torchrun starts all again from the checkpoint, and no bit is another."""
    done = job.launch(2, "--reports", reports, "--kill", f"{killed}:17", restarts=1)
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        before, after = job.steps(rank), job.steps(rank, 1)
        assert (max(before) in {16, 17}, min(after)) == (True, 15)  # rank 0 may have had all that it needs
        assert {step: seen for step, seen in before.items() if step >= 15}.items() <= after.items()
        (job.folder / f"rank-{rank}-0.txt").write_text(
            "".join(f"{step} {' '.join(seen)}\n" for step, seen in ({**before, **after}).items()),
            encoding="ascii",
        )
    check_alike(job, 2)


@pytest.mark.slow
def test_one_rank_with_nan_holds_all(job: Job) -> None:
    """One rank's NaN makes the mean NaN: at that step every rank is held at the same learning rate."""
    done = job.launch(2, "--reports", "first", "--nan", "1:9")
    assert done.returncode == 0, done.stderr
    losses, lrs = job.record()
    assert math.isnan(float.fromhex(losses[9]))
    assert lrs[9] == lrs[8]
    assert [job.steps(rank)[9].lr for rank in range(2)] == [lrs[9]] * 2


@pytest.mark.slow
def test_a_straggler_gets_the_advice_of_the_others(job: Job) -> None:
    """A rank that sleeps is not waited for; its step is answered from the others' loss, and alike for it."""
    done = job.launch(2, "--reports", "all", "--slow", "1:12:2", "--straggler-timeout-s", "0.5")
    assert done.returncode == 0, done.stderr
    losses, lrs = job.record()
    assert losses[12] == job.steps(0)[12].loss
    assert losses[11] != job.steps(0)[11].loss
    for rank in range(2):
        assert [step.lr for step in job.steps(rank).values()] == lrs


def test_a_daemon_away_keeps_no_rank_from_the_others(job: Job) -> None:
    """While the daemon is dead, rank 0's fallback is every rank's; once it is back, so is its advice."""
    command = [*TORCHRUN, "--nproc-per-node=2", "-m", "tests.support.trainings.ddp", job.daemon.address]
    launched = subprocess.Popen(
        [*command, str(job.folder), "--steps", "80", "--wait", "20", "--wait", "60"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

    def until_step(step: int) -> None:
        while step not in job.steps(0):
            assert launched.poll() is None

    until_step(19)
    job.daemon.kill()
    (job.folder / "go-20").touch()
    until_step(59)
    job.daemon.start()
    with mlrs.connect(job.daemon.address, timeout_s=30) as advisor:
        while advisor.get_run("job").next_step < 60:  # it gets what it missed
            assert launched.poll() is None
    (job.folder / "go-60").touch()
    _, errors = launched.communicate(timeout=120)
    assert launched.returncode == 0, errors
    first, second = job.steps(0), job.steps(1)
    assert len(first) == 80
    assert [step.lr for step in first.values()] == [step.lr for step in second.values()]
    assert [step.weights for step in first.values()] == [step.weights for step in second.values()]
    _, lrs = job.record()
    assert [first[step].lr for step in range(20)] == lrs[:20]
    assert {first[step].lr for step in range(20, 60)} == {lrs[19]}
    assert [first[step].lr for step in range(70, 80)] == lrs[70:]
