"""An advised `Trainer` in its own loop."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.support.frameworks import framework

transformers = framework("transformers")

import torch  # noqa: E402 # after the framework that may be missing
from torch import nn  # noqa: E402
from transformers import EarlyStoppingCallback, Trainer  # noqa: E402

import mlrs  # noqa: E402
from mlrs.errors import UsageError  # noqa: E402
from mlrs.transformers import AdvisedTrainerMixin, advised  # noqa: E402
from mlrs_proto import v1 as pb  # noqa: E402
from tests.client.fake_daemon import FakeDaemon, lr_sequence  # noqa: E402
from tests.client.transformers.trainings import Tokens, arguments, model, watch  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # those of Transformers and Accelerate are not ours


def plain(folder: Path, **settings: Any) -> Trainer:
    """Return a trainer that is not advised."""
    return Trainer(model(), arguments(folder, **settings), train_dataset=Tokens(), eval_dataset=Tokens(8))


def follow(trainer: Trainer, advisor: mlrs.Advisor, **options: Any) -> Trainer:
    """Advise a trainer, without a search."""
    settings = {"search": False, "memory": False, "id": "a", **options}
    return advised(trainer, "task", advisor=advisor, **settings)


def logged(trainer: Trainer, name: str) -> list[float]:
    """Return what was logged under a name at the steps."""
    return [entry[name] for entry in trainer.state.log_history if name in entry and "train_loss" not in entry]


@pytest.mark.parametrize("accumulated", [1, 5])
def test_each_update_uses_the_advice_for_its_loss(
    daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path, accumulated: int
) -> None:
    """An update has the advice for the loss that the trainer logs for it: of all its batches."""
    trainer = follow(plain(tmp_path, gradient_accumulation_steps=accumulated), advisor)
    used = watch(trainer)
    trainer.train()
    record = daemon.runs["a"]
    assert len(used) == {1: 36, 5: 9}[accumulated]
    assert record.losses == pytest.approx(logged(trainer, "loss"), rel=1e-6)
    assert used == lr_sequence(record.losses)
    assert logged(trainer, "learning_rate") == used
    assert record.finished
    assert (record.config.horizon, record.config.batch_size) == (len(used), 4 * accumulated)
    assert (record.config.optimizer, record.config.momentum) == (pb.OPTIMIZER_ADAMW, 0.9)


def test_a_class_of_ones_own(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """The mixin advises a class whose loss is its own."""

    class Halved(AdvisedTrainerMixin, Trainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            return super().compute_loss(*args, **kwargs) / 2

    trainer = Halved(
        model(),
        arguments(tmp_path, max_steps=6, gradient_accumulation_steps=2),
        train_dataset=Tokens(),
        task="task",
        advisor=advisor,
        search=False,
        run_options={"id": "a", "memory": False, "horizon": 50},
    )
    used = watch(trainer)
    trainer.train()
    record = daemon.runs["a"]
    assert record.losses == pytest.approx(logged(trainer, "loss"), rel=1e-6)
    assert record.losses[0] == pytest.approx(2.77 / 2, abs=0.1)
    assert used == lr_sequence(record.losses)
    assert record.config.horizon == 50
    assert record.task == "task"


def test_losses_that_the_trainer_averages(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """A model that knows no number of items has the mean of its batches' losses."""

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(8, 1)

        def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            scores = self.layer(input_ids.float())
            return {"loss": (scores - labels.float().mean(1, True)).square().mean(), "logits": scores}

    trainer = Trainer(
        Linear(), arguments(tmp_path, gradient_accumulation_steps=4, optim="sgd"), train_dataset=Tokens()
    )
    follow(trainer, advisor).train()
    assert daemon.runs["a"].losses == pytest.approx(logged(trainer, "loss"), rel=1e-6)
    assert daemon.runs["a"].config.optimizer == pb.OPTIMIZER_SGD


def test_evaluations_are_told(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """The loss of an evaluation in a training goes with the next observation; that of others does not."""
    trainer = follow(plain(tmp_path, eval_strategy="steps", eval_steps=10), advisor)
    trainer.evaluate()
    trainer.train()
    trainer.evaluate()
    extras = daemon.runs["a"].extras
    told = {step: one.validation for step, one in extras.items() if one.validation is not None}
    *losses, _at_the_end, _afterwards = logged(trainer, "eval_loss")
    assert told == {at: (at, loss) for at, loss in zip((10, 20, 30), losses, strict=True)}


def test_an_update_that_a_scaler_skips(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """A step without an update is ended, although the trainer does not step its scheduler then."""

    class Skipping(Trainer):
        def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
            self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
            self.accelerator.native_amp = True
            return super().create_optimizer(*args, **kwargs)

        def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            loss = super().training_step(*args, **kwargs)
            if self.state.global_step in {3, 7}:
                next(self.model.parameters()).grad[0, 0] = torch.inf
            return loss

    settings = {"max_steps": 8, "save_steps": 4, "save_strategy": "steps", "optim": "adamw_torch"}
    trainer = follow(Skipping(model(), arguments(tmp_path, **settings), train_dataset=Tokens()), advisor)
    used = watch(trainer)
    trainer.train()
    record = daemon.runs["a"]
    rates = lr_sequence(record.losses)
    assert len(rates) == 8
    assert used == rates[:3] + rates[4:7]
    saved = torch.load(tmp_path / "checkpoint-4" / "scheduler.pt", weights_only=True)
    assert saved["step"] == 4


def test_an_early_end(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """A training that stops early is finished; one that raises is not."""

    class Fail(transformers.TrainerCallback):
        def on_step_begin(self, _args: Any, state: Any, *_: Any, **__: Any) -> None:
            if state.global_step == 5:
                raise KeyboardInterrupt

    stopping = {"eval_strategy": "steps", "eval_steps": 3, "load_best_model_at_end": True, "save_steps": 3}
    trainer = follow(plain(tmp_path, save_strategy="steps", learning_rate=1e-9, **stopping), advisor)
    trainer.add_callback(EarlyStoppingCallback(1, early_stopping_threshold=10.0))
    trainer.train()
    assert daemon.runs["a"].finished
    assert len(daemon.runs["a"].losses) == 6
    failing = follow(plain(tmp_path), advisor, id="b")
    failing.add_callback(Fail)
    with pytest.raises(KeyboardInterrupt):
        failing.train()
    assert len(daemon.runs["b"].losses) == 5
    assert not daemon.runs["b"].finished


def test_a_second_training_is_a_new_run(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """`train()` that is called again begins another run."""
    trainer = advised(plain(tmp_path, max_steps=4), "task", advisor=advisor, search=False, memory=False)
    trainer.train()
    trainer.train()
    assert [len(one.losses) for one in daemon.runs.values()] == [4, 4]


def test_what_cannot_be_advised_is_refused(advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """A trainer with a scheduler of its own stays as it was, and no trainer is advised twice."""
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    trainer = Trainer(network, arguments(tmp_path), optimizers=(optimizer, schedule))
    with pytest.raises(UsageError, match=r"ConstantLR.*optimizers=\(optimizer, None\)"):
        follow(trainer, advisor)
    assert type(trainer) is Trainer
    with pytest.raises(UsageError, match="already"):
        follow(follow(plain(tmp_path), advisor), advisor)


def test_a_schedule_that_is_not_used_is_reported(
    advisor: mlrs.Advisor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A schedule or warmup in the training arguments has no effect, which a warning says."""
    with caplog.at_level(logging.WARNING, "mlrs"):
        follow(plain(tmp_path, max_steps=1, lr_scheduler_type="cosine"), advisor).train()
        follow(plain(tmp_path, max_steps=1, warmup_steps=3), advisor, id="b").train()
        follow(plain(tmp_path, max_steps=1), advisor, id="c").train()
    assert [record.message for record in caplog.records if "warmup" in record.message][2:] == []
    assert len(caplog.records) == 2


def test_a_blown_up_training_is_rescued(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """Where the advice asks for it, the copy is back in place when the next step begins."""
    seen: list[Any] = []

    class Bad(Trainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(next(self.model.parameters()).tolist())
            loss = super().compute_loss(*args, **kwargs)
            return loss * torch.nan if self.state.global_step == 3 else loss

    trainer = Bad(model(), arguments(tmp_path, max_steps=10), train_dataset=Tokens())
    follow(trainer, advisor, horizon=200).train()
    assert seen[4] == seen[0] != seen[3]
    assert [step for step, extras in daemon.runs["a"].extras.items() if extras.restored] == [4]
