"""Trainings with workers, as processes: interrupted, killed, resumed with another engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from mlrs_train.errors import TrainError
from mlrs_train.evolution.engines.engine import JobEngine
from tests.train.evolution.jobs import Meeting

ROOT = Path(__file__).parents[3]
TRAIN = [sys.executable, "-c", "from mlrs_cli.train import train; train()"]
SETTINGS = (
    "evolution",
    "--updates",
    "30",
    "--tasks-per-update",
    "3",
    "--population",
    "4",
    "--lesson-updates",
    "0",
)
TASKS = ("--families", "teacher-mlp,quadratic", "--min-horizon", "8", "--max-horizon", "12")
FAST = (*SETTINGS, *TASKS, "--log-every", "1", "--validate-every", "100")
HOLD = """
import sys
from mlrs_train.evolution.engines.choice import EngineChoice
from mlrs_train.evolution.engines.engine import Job
from tests.train.evolution.jobs import meet
if __name__ == "__main__":
    job = Job("meeting", meet, (int(sys.argv[2]),))
    EngineChoice(engine=sys.argv[1], workers=2).open().compute([job, job])
"""
Invoke = Callable[..., Result]


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command in a process group of its own, as a terminal does, and end it at last."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The model of an undisturbed training without workers."""
    out = tmp_path_factory.mktemp("undisturbed")
    subprocess.run([*TRAIN, *FAST, "--out", str(out)], check=True, stdout=subprocess.DEVNULL, timeout=60)
    return (out / "model.safetensors").read_bytes()


def test_ctrl_c_saves_and_another_engine_goes_on(
    invoke: Invoke, tmp_path: Path, undisturbed: bytes, logged: Callable[..., None]
) -> None:
    """Ctrl-C for all processes saves after the update, silently; resumed without workers: the same bytes."""
    with running(*TRAIN, *FAST, "--workers", "2", "--out", str(tmp_path)) as process:
        logged(process, tmp_path / "log.jsonl")
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert "Interrupted after" in output
    result = invoke("--resume", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "model.safetensors").read_bytes() == undisturbed


@pytest.mark.slow
def test_workers_change_no_byte(invoke: Invoke, tmp_path: Path, undisturbed: bytes) -> None:
    """The model of a training with workers is that of one without, provenance included."""
    result = invoke(*FAST, "--workers", "3", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "model.safetensors").read_bytes() == undisturbed


@pytest.mark.slow
def test_ray_changes_no_byte(tmp_path: Path, undisturbed: bytes, ray_cluster: JobEngine) -> None:
    """A training that joins a running Ray cluster gives the same bytes too, and leaves the cluster alone."""
    import ray

    address = ray.get_runtime_context().gcs_address
    command = [*TRAIN, *FAST, "--engine", "ray", "--ray-address", address, "--out", str(tmp_path)]
    with running(*command) as process:
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    assert (tmp_path / "model.safetensors").read_bytes() == undisturbed
    assert ray_cluster.compute([]) == []


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_no_worker_outlives_its_parent(engine: str, meeting: Meeting, request: pytest.FixtureRequest) -> None:
    """Workers end when their parent is killed, even in the middle of a job."""
    if engine == "ray":
        request.getfixturevalue("ray_cluster")  # skips where Ray is missing
    with running(sys.executable, "-c", HOLD, engine, str(meeting.port)) as parent, ExitStack() as stack:
        workers = [stack.enter_context(meeting.worker())[0] for _ in range(2)]
        parent.kill()
        assert [worker.recv(1) for worker in workers] == [b"", b""]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--workers", "0"], "'--workers': 0 is not in the range x>=1"),
        (["--engine", "dask"], "'--engine': 'dask' is not one of 'local', 'ray'"),
        (["--ray-address", "head:6379"], "'--ray-address': is for --engine ray"),
    ],
)
def test_wrong_options_are_named(invoke: Invoke, tmp_path: Path, arguments: list[str], expected: str) -> None:
    """A wrong option is named, with what to do, and leaves no folder behind."""
    result = invoke("evolution", *arguments, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert expected in " ".join(result.output.replace("│", "").split())
    assert not (tmp_path / "run").exists()


def test_missing_ray_is_named(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray, the error says what to install."""
    monkeypatch.setitem(sys.modules, "ray", None)
    result = invoke("evolution", "--engine", "ray", "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "pip install 'mlrs[ray]'" in result.output
    assert not (tmp_path / "run").exists()


def test_a_failing_task_is_named(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that raises ends the command with its update and number, and where it happened."""

    def broken(*_: Any) -> None:
        raise TrainError("the task is broken")

    monkeypatch.setattr("mlrs_train.evolution.method.draw_sample", broken)
    result = invoke(*FAST, "--out", tmp_path)
    assert result.exit_code == 1
    assert "Task 0 of update 0 (counted from 0) failed" in result.output
    assert "TrainError: the task is broken" in result.output
