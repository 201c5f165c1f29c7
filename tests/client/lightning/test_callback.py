"""The callback in Lightning's own loop."""

from __future__ import annotations

import csv
import logging
import math
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.frameworks import framework

lightning = framework("lightning")

import torch  # noqa: E402 # after the framework that may be missing
from lightning.pytorch.loggers import CSVLogger  # noqa: E402
from torch import nn  # noqa: E402

import mlrs  # noqa: E402
from mlrs.errors import InvalidArgumentError, UsageError  # noqa: E402
from mlrs.lightning import AdvisedLR  # noqa: E402
from mlrs.torch import loss as torch_loss  # noqa: E402
from mlrs_proto import v1 as pb  # noqa: E402
from tests.client.fake_daemon import FakeDaemon, Record, lr_sequence  # noqa: E402
from tests.client.lightning.trainings import ROWS, Fit, batches, trainer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # Lightning's advice


def advised(advisor: mlrs.Advisor, **options: Any) -> AdvisedLR:
    """Return the callback, without a search."""
    return AdvisedLR("task", advisor=advisor, **{"search": False, "id": "a", "memory": False, **options})


def record(daemon: FakeDaemon, run_id: str = "a") -> Record:
    """Return the record of a run."""
    return daemon.runs[run_id]


def test_each_update_uses_the_advice_for_its_loss(
    daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path
) -> None:
    """The learning rate of an update is the advice for the loss of that very batch, from the first on."""
    module = Fit()
    trainer(tmp_path, advised(advisor)).fit(module, batches())
    assert len(module.used) == 20
    assert record(daemon).losses == module.losses
    assert module.used == lr_sequence(module.losses)
    assert record(daemon).finished


def test_the_run_is_described(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """Horizon, batch size, optimizer and momentum are read off the trainer; options take precedence."""
    trainer(tmp_path, advised(advisor), accumulate_grad_batches=2).fit(Fit(), batches())
    config = record(daemon).config
    assert (config.horizon, config.batch_size) == (10, 8)
    assert (config.optimizer, config.momentum) == (pb.OPTIMIZER_MOMENTUM, 0.9)
    trainer(tmp_path, advised(advisor, id="b", horizon=77, batch_size=5), max_steps=3).fit(Fit(), batches())
    assert (record(daemon, "b").config.horizon, record(daemon, "b").config.batch_size) == (77, 5)


def test_endless_training_has_no_horizon(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """A trainer that does not know its steps opens a run without a horizon."""

    class Stop(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop = trainer.global_step == 3

    trainer(tmp_path, advised(advisor), Stop(), max_epochs=-1).fit(Fit(), batches())
    assert not record(daemon).config.HasField("horizon")
    assert len(record(daemon).losses) == 3


def test_accumulation(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """An update of several batches has the mean of their losses, also at the end of an epoch with fewer."""
    module = Fit()
    trainer(tmp_path, advised(advisor), accumulate_grad_batches=4).fit(module, batches())
    groups = [module.losses[begin : begin + 4] for begin in (0, 4, 8)]
    groups[2] = module.losses[8:10]
    means = [math.fsum(group) / len(group) for group in groups]
    assert record(daemon).losses[:3] == pytest.approx(means, rel=1e-6)
    assert module.used == lr_sequence(record(daemon).losses)
    assert len(module.used) == 6


def test_mixed_precision(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """A precision plugin changes nothing in what is sent and used."""
    module = Fit()
    trainer(tmp_path, advised(advisor), precision="bf16-mixed").fit(module, batches())
    assert record(daemon).losses == module.losses
    assert module.used == lr_sequence(module.losses)


def test_gradient_scaler(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """Losses are sent unscaled, and an update that the scaler skips ends its step."""
    from lightning.pytorch.plugins import MixedPrecision

    class Overflow(Fit):
        def on_after_backward(self) -> None:
            if len(self.losses) == 3:
                self.net[0].weight.grad[0, 0] = math.inf

    module = Overflow()
    plugin = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10))
    trainer(tmp_path, advised(advisor), plugins=[plugin]).fit(module, batches())
    assert record(daemon).losses == module.losses
    rates = lr_sequence(module.losses)
    assert module.used == rates[:2] + rates[3:]


def test_a_closure_that_is_called_again(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """Of the evaluations of LBFGS in a step, the first loss is that of the step."""

    class Quasi(Fit):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.LBFGS(self.parameters(), lr=0.05, max_iter=3)
            optimizer.register_step_post_hook(
                lambda optimizer, _args, _kwargs: self.used.append(optimizer.param_groups[0]["lr"])
            )
            optimizer.register_step_pre_hook(lambda *_: self.starts.append(len(self.losses)))
            return optimizer

    module = Quasi()
    module.starts = []
    trainer(tmp_path, advised(advisor), max_epochs=1, limit_train_batches=4).fit(module, batches())
    sent = record(daemon).losses
    assert len(sent) == 4 < len(module.losses)
    assert set(sent) <= set(module.losses)
    assert sent[0] == module.losses[0]
    assert module.used == lr_sequence(sent)


def test_a_step_without_a_loss(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """A batch for which `training_step` returns nothing is no step of the run."""

    class Skip(Fit):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None if batch_idx == 2 else super().training_step(batch, batch_idx)

    module = Skip()
    trainer(tmp_path, advised(advisor), max_epochs=1).fit(module, batches())
    assert record(daemon).losses == module.losses
    assert len(module.losses) == 9


class Pair(Fit):
    """Two networks that are trained in turn, by hand: the second in two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.other = nn.Linear(3, 1)
        self.other_losses: list[float] = []
        self.other_used: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002  # Lightning's
        """Make an update of each."""
        first, second = self.optimizers()
        inputs, targets = batch
        loss = nn.functional.mse_loss(self.net(inputs), targets)
        first.zero_grad()
        self.manual_backward(loss)
        first.step()
        second.zero_grad()
        halves = [nn.functional.mse_loss(self.other(half), half.sum(1, True)) / 2 for half in inputs.chunk(2)]
        for half in halves:
            self.manual_backward(half)
        second.step()
        self.losses.append(loss.item())
        self.other_losses.append(torch.stack(halves).sum().item())

    def configure_optimizers(self) -> Any:
        """Return one for each."""
        optimizers = [
            torch.optim.SGD(self.net.parameters(), 0.05),
            torch.optim.SGD(self.other.parameters(), 0.05),
        ]
        for optimizer, used in zip(optimizers, (self.used, self.other_used), strict=True):
            optimizer.register_step_post_hook(
                lambda optimizer, _args, _kwargs, used=used: used.append(optimizer.param_groups[0]["lr"])
            )
        return optimizers


def test_several_optimizers(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """In manual optimization each optimizer has a run of its own, and the sum of what was backpropagated."""
    module = Pair()
    callbacks = [advised(advisor, optimizer_index=index, id=f"run-{index}") for index in range(2)]
    trainer(tmp_path, *callbacks).fit(module, batches())
    for index, losses, used in ((0, module.losses, module.used), (1, module.other_losses, module.other_used)):
        assert record(daemon, f"run-{index}").losses == losses
        assert used == lr_sequence(losses)
        assert record(daemon, f"run-{index}").config.horizon == 20


def test_several_updates_in_a_batch(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """In manual optimization an optimizer may be stepped several times in a batch, each with its own loss."""

    class Twice(Pair):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            super().training_step(batch, batch_idx)
            super().training_step(batch, batch_idx)

    module = Twice()
    trainer(tmp_path, advised(advisor, optimizer_index=1)).fit(module, batches())
    assert len(module.other_losses) == 40
    assert record(daemon).losses == module.other_losses
    assert module.other_used == lr_sequence(module.other_losses)
    assert set(module.used) == {0.05}


def test_which_optimizer_must_be_said(advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """With several optimizers and no index, or one that is too large, the fit does not begin."""
    for options in ({}, {"optimizer_index": 2}):
        with pytest.raises(InvalidArgumentError, match="2 optimizers"):
            trainer(tmp_path, advised(advisor, **options)).fit(Pair(), batches())


def test_updates_without_a_loss_are_reported(
    daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Losses that bypass `manual_backward` cannot be seen, which one warning says."""

    class Bypass(Pair):
        def manual_backward(self, loss: torch.Tensor, *_: Any, **__: Any) -> None:
            loss.backward()

    with caplog.at_level(logging.WARNING, "mlrs"):
        trainer(tmp_path, advised(advisor, optimizer_index=0)).fit(Bypass(), batches())
    assert [one.message for one in caplog.records if "manual_backward" in one.message] != []
    assert len(caplog.records) == 1
    assert daemon.runs == {} or record(daemon).losses == []


def test_a_scheduler_of_the_module_is_refused(advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """A learning-rate scheduler of the module is an error that says what to do."""

    class Scheduled(Fit):
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    with pytest.raises(UsageError, match=r"StepLR.*return the optimizer alone"):
        trainer(tmp_path, advised(advisor)).fit(Scheduled(), batches())


def test_the_learning_rate_is_logged_at_its_step(advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """A logger gets the learning rate of a step in the row that has the loss of that step."""
    module = Fit()
    logger = CSVLogger(tmp_path, name="log", version=0)
    trainer(tmp_path, advised(advisor), logger=logger, log_every_n_steps=1).fit(module, batches())
    with (tmp_path / "log" / "version_0" / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(20))
    assert [float(row["train_loss"]) for row in rows] == pytest.approx(module.losses)
    assert [float(row["lr"]) for row in rows] == pytest.approx(module.used)


def test_validation_losses_are_told(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """The logged `val_loss` goes with the first observation after it; that of the sanity check does not."""
    module = Fit()
    callback = advised(advisor)
    fitting = trainer(tmp_path, callback, max_epochs=3, val_check_interval=5, num_sanity_val_steps=2)
    fitting.fit(module, batches(), batches(8))
    told = {step: extras.validation for step, extras in record(daemon).extras.items() if extras.validation}
    assert {step: at for step, (at, _) in told.items()} == {5: 5, 10: 10, 15: 15, 20: 20, 25: 25}
    assert all(0.0 < loss < 10.0 for _, loss in told.values())


def test_nothing_is_told_without_a_monitor(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """`monitor=None` tells no validation loss."""
    trainer(tmp_path, advised(advisor, monitor=None)).fit(Fit(), batches(), batches(8))
    assert [extras for extras in record(daemon).extras.values() if extras.validation] == []


def test_an_interrupted_fit_is_not_finished(
    daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path
) -> None:
    """A fit that raises leaves its run open."""

    class Fail(Fit):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            if len(self.losses) == 7:
                raise RuntimeError("out of luck")
            return super().training_step(batch, batch_idx)

    with pytest.raises(RuntimeError, match="out of luck"):
        trainer(tmp_path, advised(advisor)).fit(Fail(), batches())
    assert len(record(daemon).losses) == 7
    assert not record(daemon).finished


def test_the_end_waits_for_losses_on_a_device(
    daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fit that ends has sent the loss that a device was still computing."""
    computed, value = threading.Event(), torch_loss.Loss.value

    def wait(loss: torch_loss.Loss) -> float:
        assert computed.wait(5)
        return value(loss)

    class Late(Fit):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            if len(self.losses) == 19:  # the last one
                monkeypatch.setattr(torch_loss, "_is_on_host", lambda _: False)
                monkeypatch.setattr(torch_loss.Loss, "value", wait)
            return super().training_step(batch, batch_idx)

        def on_train_epoch_end(self) -> None:
            if len(self.losses) == 20:  # after the last update
                threading.Timer(0.05, computed.set).start()

    module = Late()
    trainer(tmp_path, advised(advisor, lagged=True)).fit(module, batches())
    assert record(daemon).losses == module.losses
    assert len(module.losses) == 20
    assert record(daemon).finished


def test_a_second_fit_is_a_new_run(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """A callback may be used for another fit, which has a run of its own."""
    callback = AdvisedLR("task", advisor=advisor, search=False, memory=False)
    for _ in range(2):
        trainer(tmp_path, callback).fit(Fit(), batches())
    assert [len(one.losses) for one in daemon.runs.values()] == [20, 20]
    assert ROWS == 40


def test_the_other_package_of_lightning(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """The trainer of `pytorch_lightning` takes the callback as well."""
    other = pytest.importorskip("pytorch_lightning")

    class Other(other.LightningModule):  # type: ignore[misc]  # its base is untyped
        losses: list[float]

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:  # noqa: ARG002  # Lightning's
            loss: torch.Tensor = nn.functional.mse_loss(self.net(batch[0]), batch[1])
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.05)

    module = Other()
    module.net, module.losses = nn.Linear(3, 1), []
    callback = AdvisedLR("task", advisor=advisor, id="a", memory=False, horizon=1000)
    fitting = other.Trainer(
        accelerator="cpu",
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        logger=False,
        max_steps=5,
        default_root_dir=tmp_path,
    )
    fitting.fit(module, batches())
    assert len(daemon.runs["a"].searches) == 1
    assert daemon.runs["a"].losses == module.losses[-5:]


def test_a_blown_up_training_is_rescued(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """Where the advice asks for it, the copy is back in place when the next batch begins."""

    class Bad(Fit):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            self.seen = [*getattr(self, "seen", []), self.net[0].weight.tolist()]
            loss = super().training_step(batch, batch_idx)
            return loss * math.nan if self.global_step == 3 else loss

    module = Bad()
    trainer(tmp_path, advised(advisor, horizon=200)).fit(module, batches())
    assert module.seen[4] == module.seen[0] != module.seen[3]
    assert [step for step, extras in record(daemon).extras.items() if extras.restored] == [4]
    assert math.isfinite(sum(module.weights()))
