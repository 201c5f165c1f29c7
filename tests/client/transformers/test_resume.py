"""A training that is interrupted and continues from the trainer's checkpoint, with a real daemon."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.frameworks import framework

framework("transformers")

from transformers import Trainer, TrainerCallback  # noqa: E402 # after the framework that may be missing

import mlrs  # noqa: E402
from mlrs.transformers import advised  # noqa: E402
from tests.client.transformers.trainings import Tokens, arguments, model, watch, weights  # noqa: E402
from tests.support.daemon import Daemon  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("default"),  # those of Transformers and Accelerate are not ours
    pytest.mark.timeout(300),
]


class CrashError(Exception):
    """What ends a training."""


class Crash(TrainerCallback):
    """Ends a training before a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:  # noqa: ARG002  # theirs
        """End it."""
        if state.global_step == self.step:
            raise CrashError


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A real daemon."""
    with Daemon(tmp_path_factory.mktemp("daemon") / "data") as daemon:
        yield daemon


class Seen(NamedTuple):
    """What came of a training."""

    rates: list[float]
    losses: list[float]
    told: list[tuple[int, float]]
    weights: list[float]


def train(
    folder: Path, address: str, *, crash: int | None = None, **settings: Any
) -> tuple[Seen | None, list[float]]:
    """Train, from the last checkpoint if there is one; return what came of it, and its updates' rates."""
    values = {
        "save_strategy": "steps",
        "save_steps": 7,
        "eval_strategy": "steps",
        "eval_steps": 7,
        **settings,
    }
    trainer = Trainer(model(), arguments(folder, **values), train_dataset=Tokens(), eval_dataset=Tokens(8))
    used = watch(trainer)
    if crash is not None:
        trainer.add_callback(Crash(crash))
    with mlrs.connect(address, timeout_s=30.0) as advisor:
        advised(trainer, "task", advisor=advisor, search=False, memory=False)
        try:
            trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
        except CrashError:
            return None, used
        chunks = list(advisor.watch(trainer.run.id))
    rates = [rate for chunk in chunks for rate in chunk.learning_rates]
    losses = [loss for chunk in chunks for loss in chunk.losses]
    told = [(one.step, one.loss) for chunk in chunks for one in chunk.validations]
    return Seen(rates, losses, told, weights(trainer)), used


@pytest.mark.parametrize("is_killed", [False, True], ids=["daemon stays", "daemon killed"])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_interrupted_equals_undisturbed(
    real: Daemon, tmp_path: Path, accumulated: int, *, is_killed: bool
) -> None:
    """A training that continues from a checkpoint in an epoch equals one that never stopped, to the bit."""
    settings = {"num_train_epochs": 3 * accumulated, "gradient_accumulation_steps": accumulated}
    expected, used = train(tmp_path / "undisturbed", real.address, **settings)
    train(tmp_path / "crashed", real.address, crash=24, **settings)
    if is_killed:
        real.kill()
        real.start()
    resumed, again = train(tmp_path / "crashed", real.address, **settings)
    assert expected is not None
    assert len(expected.rates) == 36
    assert [step for step, _ in expected.told] == [7, 14, 21, 28, 35]
    assert resumed == expected
    assert again == used[21:] == expected.rates[21:]


def test_a_checkpoint_without_a_run(real: Daemon, tmp_path: Path) -> None:
    """A training from a checkpoint that holds no run begins one for the steps that are left."""
    train(tmp_path, real.address, crash=24)
    for path in tmp_path.glob("checkpoint-*/scheduler.pt"):
        path.unlink()
    seen, used = train(tmp_path, real.address)
    assert seen is not None
    assert used == seen.rates
    assert len(used) == 15


def test_a_daemon_that_is_away_stops_no_training(tmp_path: Path) -> None:
    """A training goes on with its last learning rate when the daemon is killed, and no loss is lost."""
    unsent = tmp_path / "unsent"
    with Daemon(tmp_path / "data") as daemon:

        class Kill(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:  # noqa: ARG002  # theirs
                if state.global_step == 20:
                    daemon.kill()

        trainer = Trainer(model(), arguments(tmp_path / "out"), train_dataset=Tokens(), callbacks=[Kill()])
        used = watch(trainer)
        with mlrs.connect(daemon.address, timeout_s=0.5, unsent_dir=unsent) as advisor:
            advised(trainer, "task", advisor=advisor, search=False, memory=False, timeout_s=30.0)
            trainer.train()
        assert used[20:] == [used[19]] * 16
        daemon.start()
        with mlrs.connect(daemon.address, timeout_s=30.0) as advisor:
            (file,) = unsent.iterdir()
            (info,) = advisor.push(file)
            losses = [loss for chunk in advisor.watch(info.id) for loss in chunk.losses]
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses == pytest.approx(logged, rel=1e-6)
    shutil.rmtree(unsent)
