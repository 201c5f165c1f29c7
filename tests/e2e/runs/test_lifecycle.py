"""Runs that lose their script, or their daemon, and go on as if nothing had happened."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import mlrs
from tests.support.daemon import Daemon, write_random_model
from tests.support.runs import open_run

STEPS = 300


def _loss(step: int) -> float:
    return 2.5 / (1 + 0.05 * step) + 0.1 * ((step * 7919) % 13) / 13


def _undisturbed(address: str) -> list[float]:
    """Return the LRs of a run that nothing happens to."""
    with mlrs.connect(address, timeout_s=20) as advisor:
        run = open_run(advisor, "undisturbed", horizon=1000, num_classes=10)
        return [run.next_lr(step, _loss(step)) for step in range(STEPS)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small random model."""
    return write_random_model(tmp_path / "tiny.safetensors")


@pytest.mark.slow
def test_daemon_stopped_and_started_again_gives_the_same_lrs(tmp_path: Path, model: Path) -> None:
    """A run that goes on after the daemon was stopped and started again gets the same LRs, bit for bit."""
    with Daemon(tmp_path / "data", "--model", str(model)) as daemon:
        expected = _undisturbed(daemon.address)
        lrs = []
        for start in range(0, STEPS, 100):
            with mlrs.connect(daemon.address, timeout_s=20) as advisor:
                run = open_run(advisor, "interrupted", horizon=1000, num_classes=10)
                assert run.next_step == start
                lrs += [run.next_lr(step, _loss(step)) for step in range(start, start + 100)]
            assert daemon.stop() == 0
            daemon.start()
    assert lrs == expected


def test_daemon_killed_under_a_client_changes_no_lr(tmp_path: Path, model: Path) -> None:
    """A client whose daemon is killed with -9 and started again sends what was lost and gets the same LRs."""
    with Daemon(tmp_path / "data", "--model", str(model)) as daemon:
        expected = _undisturbed(daemon.address)
        lrs = []
        with mlrs.connect(daemon.address, timeout_s=20) as advisor:
            run = open_run(advisor, "survivor", horizon=1000, num_classes=10)
            for step in range(STEPS):
                if step in {1, 57, 58, 130, 299}:
                    daemon.kill()
                    daemon.start()
                lrs.append(run.next_lr(step, _loss(step)))
            run.finish()
    assert lrs == expected


@pytest.mark.slow
def test_two_frameworks_in_two_processes_share_a_daemon(tmp_path: Path) -> None:
    """The PyTorch and the NumPy example train at the same time, advised by the shipped model, and learn."""
    examples = Path(__file__).parents[3] / "examples"
    arguments = ["--schedule", "advised", "--steps", "200"]
    with Daemon(tmp_path / "data") as daemon:
        processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    str(examples / name),
                    *arguments,
                    "--address",
                    daemon.address,
                    "--run-id",
                    name,
                ],
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in ("train_torch.py", "train_numpy.py")
        ]
        outputs = [process.communicate(timeout=100)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0]
        with mlrs.connect(daemon.address) as advisor:
            infos = list(advisor.runs())
    assert [(info.id, info.next_step, info.status.value) for info in infos] == [
        ("train_numpy.py", 200, "finished"),
        ("train_torch.py", 200, "finished"),
    ]
    assert [info.config.optimizer for info in infos] == ["sgd", "sgd"]
    for output in outputs:
        accuracy = float(output.splitlines()[-1].split('"test_accuracy": ')[1].split(",")[0])
        assert accuracy > 0.9


def test_a_unix_socket_serves_as_well(tmp_path: Path, model: Path) -> None:
    """A daemon that listens on a Unix socket gives a client there the same LRs as over TCP."""
    with Daemon(tmp_path / "data", "--model", str(model)) as daemon:
        expected = _undisturbed(daemon.address)
    socket = f"unix:{tmp_path / 'mlrs.sock'}"
    with Daemon(tmp_path / "other", "--model", str(model), listen=socket) as daemon:
        assert daemon.address == socket
        assert _undisturbed(socket) == expected


def test_a_stopped_daemon_is_told_by_the_deadline(tmp_path: Path, model: Path) -> None:
    """While the daemon is frozen a call ends at its deadline, clearly, and the run goes on after."""
    with Daemon(tmp_path / "data", "--model", str(model)) as daemon:
        with mlrs.connect(daemon.address, timeout_s=1.0) as advisor:
            run = open_run(advisor, "frozen", horizon=1000, num_classes=10, fallback=None)
            first = run.next_lr(0, _loss(0))
            daemon.signal(signal.SIGSTOP)
            with pytest.raises(mlrs.errors.DeadlineExceededError, match="step 1"):
                run.next_lr(1, _loss(1))
            daemon.signal(signal.SIGCONT)
            rest = [run.next_lr(step, _loss(step)) for step in range(1, 20)]
        expected = _undisturbed(daemon.address)[:20]
    assert [first, *rest] == expected
