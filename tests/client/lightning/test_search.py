"""The search at the start of a fit, on the trainer's own batches and `training_step`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.support.frameworks import framework

lightning = framework("lightning")

import torch  # noqa: E402 # after the framework that may be missing
from lightning.pytorch.loggers import CSVLogger  # noqa: E402
from torch.utils.data import IterableDataset  # noqa: E402

import mlrs  # noqa: E402
from mlrs.lightning import AdvisedLR  # noqa: E402
from mlrs.torch.search.batches import JUDGED_BY  # noqa: E402
from tests.client.fake_daemon import TRIAL_STEPS, TRIED, FakeDaemon  # noqa: E402
from tests.client.lightning.trainings import Fit, batches, trainer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # Lightning's advice


class Watched(Fit):
    """A module that keeps what it was before its first batch, and counts what trials change."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.seen = 0
        self.outputs: list[torch.Tensor] = []
        self.before: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Note the batch."""
        loss = super().training_step(batch, batch_idx)
        self.log("mean_loss", loss, on_step=False, on_epoch=True)
        self.logger.experiment.log_metrics({"direct": self.seen})
        self.seen += 1
        self.outputs.append(loss.detach())
        return loss

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002  # Lightning's
        """Keep the state before the first batch, the batch, and a random number."""
        if not self.before:
            self.before = [self.weights(), batch[0].tolist(), torch.get_rng_state().tolist(), self.seen]


def fitted(folder: Path, callback: AdvisedLR, **settings: Any) -> Watched:
    """Train on shuffled batches, which the random number generator orders."""
    module = Watched()
    torch.manual_seed(3)
    logger = CSVLogger(folder, name=None, version="log", flush_logs_every_n_steps=1)
    fitting = trainer(folder, callback, logger=logger, log_every_n_steps=1, **{"max_epochs": 30, **settings})
    fitting.fit(module, batches(shuffle=True))
    return module


@pytest.mark.parametrize("accumulated", [1, 2])
def test_it_leaves_no_trace(
    daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path, accumulated: int
) -> None:
    """A training with a search sees the batches, weights and random numbers of one without; so do its logs.

    The learning rates of the two are the same here, and so is all that comes of them.
    """
    found, plain = (
        fitted(
            tmp_path / str(search),
            AdvisedLR("task", advisor=advisor, search=search, memory=False, id=f"run-{search}"),
            accumulate_grad_batches=accumulated,
            max_epochs=30 * accumulated,
        )
        for search in (True, False)
    )
    (search,) = daemon.runs["run-True"].searches
    assert [rate for rate, _ in search.asked] == list(TRIED)
    assert [0 < one.steps <= TRIAL_STEPS for one in search.results] == [True] * 3
    assert found.before == plain.before
    assert found.losses == plain.losses
    assert found.weights() == plain.weights()
    assert len(found.outputs) == found.seen == 300 * accumulated
    assert len(daemon.runs["run-True"].losses) == 300
    rows = [(tmp_path / str(one) / "log" / "metrics.csv").read_text().splitlines() for one in (True, False)]
    assert rows[0] == rows[1]


def test_trials_are_the_trainers_steps(advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """Trials clip gradients as the trainer does, and call the hooks of a module for its batches."""
    clipped, moved = [], []

    class Clipping(Watched):
        def configure_gradient_clipping(self, optimizer: Any, *args: Any, **settings: Any) -> None:
            clipped.append(settings["gradient_clip_val"])
            super().configure_gradient_clipping(optimizer, *args, **settings)

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            moved.append(dataloader_idx)
            return batch

    module = Clipping()
    logger = CSVLogger(tmp_path)
    fitting = trainer(
        tmp_path,
        AdvisedLR("task", advisor=advisor, memory=False, horizon=1000),
        logger=logger,
        max_steps=1,
        gradient_clip_val=0.5,
    )
    fitting.fit(module, batches())
    assert clipped == [0.5] * (len(TRIED) * TRIAL_STEPS + 1)
    assert len(moved) == len(TRIED) * (TRIAL_STEPS + JUDGED_BY) + 1


@pytest.mark.parametrize("wanted", ["manual", "iterable", "no loss", "several loaders"])
def test_where_it_cannot_be_made(
    daemon: FakeDaemon,
    advisor: mlrs.Advisor,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    wanted: str,
) -> None:
    """Where the trainer's steps cannot be trials, one warning says why, and the training is advised."""

    class Rows(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(batches(1).dataset)

    class Manual(Fit):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            loss = super().training_step(batch, batch_idx)
            self.optimizers().zero_grad()
            self.manual_backward(loss)
            self.optimizers().step()

    class NoLoss(Fit):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            return loss if self.trainer.global_step or torch.is_grad_enabled() else None

    class Several(Fit):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return super().training_step(batch["one"], batch_idx)

    module, loader = {
        "manual": (Manual(), batches()),
        "iterable": (Fit(), torch.utils.data.DataLoader(Rows(), batch_size=4)),
        "no loss": (NoLoss(), batches()),
        "several loaders": (Several(), {"one": batches(), "other": batches()}),
    }[wanted]
    why = {"manual": "manual optimization", "iterable": "IterableDataset", "no loss": "returned no loss"}
    callback = AdvisedLR("task", advisor=advisor, memory=False, horizon=1000, id="a")
    with caplog.at_level(logging.WARNING, "mlrs"):
        trainer(tmp_path, callback, max_steps=5).fit(module, loader)
    (warning,) = [one.message for one in caplog.records]
    assert why.get(wanted, "from a dict") in warning
    assert len(daemon.runs["a"].losses) == 5
