"""A fit that is interrupted and continues from Lightning's checkpoint, with a real daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.frameworks import framework

lightning = framework("lightning")

import torch  # noqa: E402 # after the framework that may be missing
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402
from torch.utils.data import DataLoader, Sampler  # noqa: E402

import mlrs  # noqa: E402
from mlrs.lightning import AdvisedLR  # noqa: E402
from tests.client.lightning.trainings import ROWS, Fit, batches, trainer  # noqa: E402
from tests.support.daemon import Daemon  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning"),  # Lightning's advice
    pytest.mark.timeout(300),
]
EPOCHS = 6


class CrashError(Exception):
    """What ends a fit."""


class Crash(lightning.Callback):
    """Ends a fit after so many updates."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        """End it before the next batch."""
        if trainer.global_step == self.step:
            raise CrashError


class Resumable(DataLoader[Any]):
    """A loader that continues in the middle of an epoch, as Lightning asks it to."""

    def __init__(self, size: int) -> None:
        self.order = Order(size)
        super().__init__(batches().dataset, batch_sampler=self.order)

    def state_dict(self) -> dict[str, int]:
        """Return how many batches were read."""
        return {"read": self.order.read}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin after them."""
        self.order.begin = state["read"] % len(self.order)


class Order(Sampler[Any]):
    """Batches of consecutive rows."""

    def __init__(self, size: int) -> None:
        self.batch_size, self.drop_last, self.begin, self.read = size, False, 0, 0

    def __len__(self) -> int:
        return ROWS // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        begin, self.begin = self.begin, 0
        for index in range(begin, len(self)):
            self.read = index + 1
            yield list(range(index * self.batch_size, self.read * self.batch_size))


class Steady(Fit):
    """A module whose random numbers depend on the step alone, as a resumed fit has others."""

    def on_train_batch_start(self, *_: Any) -> None:
        """Seed them."""
        torch.manual_seed(self.trainer.global_step)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A real daemon."""
    with Daemon(tmp_path_factory.mktemp("daemon") / "data") as daemon:
        yield daemon


def fit(folder: Path, address: str, loader: Any, *callbacks: Any, **where: Any) -> tuple[Any, Steady]:
    """Train with checkpoints, or to an interrupt; return the run's record and the module."""
    module = Steady()
    saving = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, every_n_train_steps=4, save_last=True)
    each_epoch = ModelCheckpoint(folder, filename="epoch-{epoch}", save_top_k=-1)
    with mlrs.connect(address, timeout_s=30.0) as advisor:
        advised = AdvisedLR("task", advisor=advisor, search=False, memory=False)
        fitting = trainer(
            folder, advised, saving, each_epoch, *callbacks, max_epochs=EPOCHS, enable_checkpointing=True
        )
        try:
            fitting.fit(module, loader, batches(8), **where)
        except CrashError:
            return None, module
        run_id = advised.run.id
        chunks = list(advisor.watch(run_id))
        rates = [rate for chunk in chunks for rate in chunk.learning_rates]
        told = [(one.step, one.loss) for chunk in chunks for one in chunk.validations]
        return (rates, told), module


@pytest.mark.parametrize("is_killed", [False, True], ids=["daemon stays", "daemon killed"])
@pytest.mark.parametrize(
    ("crash", "checkpoint"), [(27, "last"), (24, "step=12.ckpt"), (37, "epoch-epoch=2.ckpt")]
)
def test_interrupted_equals_undisturbed(
    real: Daemon, tmp_path: Path, crash: int, checkpoint: str, *, is_killed: bool
) -> None:
    """A fit that continues from a checkpoint has the learning rates and weights of one that never stopped."""
    expected, undisturbed = fit(tmp_path / "undisturbed", real.address, Resumable(4))
    fit(tmp_path / "crashed", real.address, Resumable(4), Crash(crash))
    if is_killed:
        real.kill()
        real.start()
    path = "last" if checkpoint == "last" else str(tmp_path / "crashed" / checkpoint)
    resumed, module = fit(tmp_path / "crashed", real.address, Resumable(4), ckpt_path=path)
    assert len(expected[0]) == EPOCHS * 10
    assert len(expected[1]) == EPOCHS - 1
    assert resumed == expected
    assert module.weights() == undisturbed.weights()
    assert module.used == undisturbed.used[-len(module.used) :]
    assert 0 < len(module.used) < len(undisturbed.used)


def test_a_test_of_a_checkpoint_continues_nothing(real: Daemon, tmp_path: Path) -> None:
    """A fit after a test that loads a checkpoint is a new run."""

    class Tested(Fit):
        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.validation_step(batch, batch_idx)

    saving = ModelCheckpoint(tmp_path, save_last=True)
    with mlrs.connect(real.address, timeout_s=30.0) as advisor:
        advised = AdvisedLR("task", advisor=advisor, search=False, memory=False)
        fitting = trainer(tmp_path, advised, saving, enable_checkpointing=True)
        fitting.fit(Tested(), batches())
        first = advised.run.id
        fitting.test(Tested(), batches(), ckpt_path="last", weights_only=False)
        trainer(tmp_path, advised).fit(Tested(), batches())
        assert advised.run.id != first
        assert [advisor.get_run(id_).next_step for id_ in (first, advised.run.id)] == [20, 20]


def test_a_daemon_that_is_away_stops_no_training(tmp_path: Path) -> None:
    """A fit goes on with its last learning rate when the daemon is killed, and none of its losses is lost."""
    with Daemon(tmp_path / "data") as daemon:

        class Kill(lightning.Callback):
            def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
                if trainer.global_step == 20:
                    daemon.kill()

        module, unsent = Fit(), tmp_path / "unsent"
        with mlrs.connect(daemon.address, timeout_s=0.5, unsent_dir=unsent) as advisor:
            advised = AdvisedLR("task", advisor=advisor, search=False, memory=False, timeout_s=30.0)
            trainer(tmp_path, advised, Kill(), max_epochs=EPOCHS).fit(module, batches())
        assert module.used[20:] == [module.used[19]] * (EPOCHS * 10 - 20)
        daemon.start()
        with mlrs.connect(daemon.address, timeout_s=30.0) as advisor:
            (file,) = unsent.iterdir()
            (info,) = advisor.push(file)
            losses = [loss for chunk in advisor.watch(info.id) for loss in chunk.losses]
        assert losses == module.losses
