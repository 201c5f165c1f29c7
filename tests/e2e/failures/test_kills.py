"""The daemon killed with -9, its clients killed, and both, under many runs: no learning rate changes."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Self

import pytest

import mlrs
from tests.support.daemon import Daemon, write_random_model
from tests.support.ports import steady_port
from tests.support.reliability import save
from tests.support.runs import open_run
from tests.support.trainings.training import Training, Undisturbed, examine

PROCESSES, THREADS = 3, 4
SOME = pytest.param(3, id="some")
MANY = pytest.param(210, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(3600)])
FAILPOINTS = (
    "journal.store",
    "store.committed",
    "store.commit",
    "journal.stored",
    "lifecycle.created",
    "lifecycle.finish",
    "lifecycle.finished",
)


class Scene:
    """A daemon, and processes that train under it."""

    def __init__(self, folder: Path, *, processes: int = PROCESSES) -> None:
        model = write_random_model(folder / "model.safetensors")
        self.undisturbed = Undisturbed(model)
        self.daemon = Daemon(folder / "data", "--model", str(model), listen=f"127.0.0.1:{steady_port()}")
        self.daemon.start()
        addresses = [self.daemon.address] * THREADS
        self.trainings = [Training(f"process-{index}", folder, addresses) for index in range(processes)]
        self.chance = random.Random(1)  # noqa: S311  # a test's dice

    def __enter__(self) -> Self:
        for training in self.trainings:
            training.start()
        return self

    def __exit__(self, *_: object) -> None:
        for training in self.trainings:
            training.__exit__()
        self.daemon.__exit__()

    def kill_daemon(self) -> None:
        """Kill the daemon at a random moment, a few of them while it starts, and start it again."""
        time.sleep(self.chance.uniform(0.0, 0.6))
        self.daemon.kill()
        if self.chance.random() < 0.1:
            self.daemon.launch()
            time.sleep(self.chance.uniform(0.0, 1.2))
            self.daemon.kill()
        self.daemon.start()

    def kill_training(self) -> None:
        """Kill a training process at a random moment, most of them in training, and start it again."""
        training = self.chance.choice(self.trainings)
        if self.chance.random() < 0.9:
            training.wait_until_ready()
        time.sleep(self.chance.uniform(0.0, 0.6))
        training.kill()
        training.start()

    def end(self, name: str, *, slow: bool, began: float, **figures: int) -> None:
        """Let every run end, and check all of them; save what was seen of a long test."""
        time.sleep(1.0)
        for training in self.trainings:
            training.drain()
        found = examine(self.trainings, self.undisturbed, self.daemon.address)
        assert found.wrong == []
        assert found.runs >= len(self.trainings) * THREADS
        if slow:
            figures |= {"runs": found.runs, "steps": found.steps, "calls_made_again": found.again.total()}
            command = f"pytest -m slow tests/e2e/failures/test_kills.py -k {name}"
            save(f"kills_{name}", command, began, time.monotonic(), **figures, wrong_learning_rates=0)


@pytest.mark.parametrize("kills", [MANY])
def test_daemon_killed_at_random_moments(tmp_path: Path, kills: int) -> None:
    """However often the daemon is killed, runs get an undisturbed one's LRs, and their records are whole."""
    began = time.monotonic()
    with Scene(tmp_path) as scene:
        for _ in range(kills):
            scene.kill_daemon()
        scene.end("daemon_killed", slow=kills > 3, began=began, kills_of_the_daemon=kills)


@pytest.mark.parametrize("kills", [MANY])
def test_clients_killed_at_random_moments(tmp_path: Path, kills: int) -> None:
    """However often training processes are killed, their runs go on as if nothing had happened."""
    began = time.monotonic()
    with Scene(tmp_path) as scene:
        for _ in range(kills):
            scene.kill_training()
        scene.end("clients_killed", slow=kills > 3, began=began, kills_of_clients=kills)


@pytest.mark.parametrize("kills", [SOME, MANY])
def test_both_killed_at_random_moments(tmp_path: Path, kills: int) -> None:
    """With the daemon and clients killed at once, each run resumes no earlier than what was promised."""
    began = time.monotonic()
    with Scene(tmp_path, processes=min(kills - 1, PROCESSES)) as scene:
        for _ in range(kills):
            scene.kill_training()
            scene.kill_daemon()
        scene.end(
            "both_killed", slow=kills > 3, began=began, kills_of_the_daemon=kills, kills_of_clients=kills
        )


def test_finishing_again_after_a_crash_is_no_error(tmp_path: Path) -> None:
    """A run whose end was stored, and the word of it lost with the daemon, is finished by a second try."""
    daemon = Daemon(
        tmp_path / "data",
        "--model",
        str(write_random_model(tmp_path / "model.safetensors")),
        listen=f"127.0.0.1:{steady_port()}",
        environment={"MLRS_FAILPOINT": "lifecycle.finished=kill"},
    )
    with daemon, mlrs.connect(daemon.address, timeout_s=20) as advisor:
        run = open_run(advisor, "run", fallback=None)
        for step in range(3):
            run.next_lr(step, 1.0)
        with pytest.raises(mlrs.UnavailableError):
            run.finish(timeout_s=1.0)
        daemon.wait()
        daemon.environment = {}
        daemon.start()
        info = run.finish()
    assert (info.status, info.next_step) == (mlrs.types.RunStatus.FINISHED, 3)


def test_a_run_is_finished_with_all_of_its_steps(tmp_path: Path) -> None:
    """Steps that were answered and lost with the daemon are sent again before the run is finished."""
    daemon = Daemon(
        tmp_path / "data",
        "--model",
        str(write_random_model(tmp_path / "model.safetensors")),
        "--flush-interval-s",
        "60",
        listen=f"127.0.0.1:{steady_port()}",
    )
    with daemon, mlrs.connect(daemon.address, timeout_s=20) as advisor:
        run = open_run(advisor, "run")
        lrs = [run.next_lr(step, 1.0) for step in range(30)]
        daemon.kill()
        daemon.start()
        info = run.finish()
        record = [lr for chunk in advisor.watch("run") for lr in chunk.learning_rates]
    assert (info.status, info.next_step) == (mlrs.types.RunStatus.FINISHED, 30)
    assert record == lrs


@pytest.mark.parametrize(
    ("points", "times"),
    [
        pytest.param(("store.commit",), (3,), id="some"),
        pytest.param(FAILPOINTS, (1, 2, 5), id="every", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
def test_daemon_killed_at_failpoints(tmp_path: Path, points: tuple[str, ...], times: tuple[int, ...]) -> None:
    """Killed before, in and after its transactions, the daemon loses nothing and answers nothing twice."""
    began = time.monotonic()
    with Scene(tmp_path, processes=2) as scene:
        for point in points:
            for time_ in times:
                scene.daemon.kill()
                scene.daemon.environment = {"MLRS_FAILPOINT": f"{point}=kill:{time_}"}
                scene.daemon.start()
                assert scene.daemon.wait() == -9, point
                scene.daemon.environment = {}
                scene.daemon.start()
        scene.end(
            "failpoints",
            slow=len(points) > 1,
            began=began,
            points=len(points),
            kills=len(points) * len(times),
        )
