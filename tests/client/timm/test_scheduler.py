"""The scheduler for timm, in loops as timm's, without timm."""

from __future__ import annotations

import gc
import io
import weakref
from typing import Any

import pytest
import torch
from torch import nn

import mlrs
from mlrs.timm import AdvisedLR
from tests.client.fake_daemon import FakeDaemon, lr_sequence

SCALES = [0.25, 0.5, 1.0]


class Training:
    """A training whose layers have learning rates of different scales."""

    def __init__(self, advisor: mlrs.Advisor, *, saved: Any = None, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
        layers = [layer for layer in self.model if isinstance(layer, nn.Linear)]
        groups = [
            {"params": layer.parameters(), "lr_scale": scale}
            for layer, scale in zip(layers, SCALES, strict=True)
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.1)
        self.batch = torch.randn(8, 4)
        if saved is not None:
            self.load(saved)
        self.scheduler = AdvisedLR(self.optimizer, "task", advisor=advisor, memory=False, **options)
        self.losses: list[float] = []
        self.used: list[list[float]] = []
        self.updates = 0

    def train(self, updates: int, *, late: bool = False) -> None:
        """Make updates as the adapter's documentation says, with `observe` or one step late."""
        for _ in range(updates):
            loss = self.model(self.batch).square().mean()
            self.losses.append(loss.item())
            if not late:
                self.scheduler.observe(loss)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.used.append([float(group["lr"]) for group in self.optimizer.param_groups])
            self.updates += 1
            self.scheduler.step_update(self.updates, metric=loss if late else None)

    def save(self) -> io.BytesIO:
        """Return a checkpoint as timm's: of the model and the optimizer."""
        file = io.BytesIO()
        torch.save([self.model.state_dict(), self.optimizer.state_dict()], file)
        return file

    def load(self, file: io.BytesIO) -> None:
        """Load one."""
        file.seek(0)
        model, optimizer = torch.load(file, weights_only=True)
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)

    def weights(self) -> torch.Tensor:
        """Return all weights."""
        return torch.cat([weight.detach().flatten() for weight in self.model.parameters()])


def scaled(lrs: list[float]) -> list[list[float]]:
    """Return the learning rates of the groups for each advice."""
    return [[scale * lr for scale in SCALES] for lr in lrs]


def test_each_update_has_the_advice_for_its_loss(advisor: mlrs.Advisor) -> None:
    """With `observe` an update's learning rates are the advice for its loss, times each group's scale."""
    training = Training(advisor)
    assert [group["lr"] for group in training.optimizer.param_groups] == [0.1 * scale for scale in SCALES]
    training.train(5)
    assert training.used == scaled(lr_sequence(training.losses))


def test_one_step_late(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """With `metric` an update's learning rates come from the loss of the update before."""
    training = Training(advisor)
    training.train(5, late=True)
    assert training.used == scaled([0.1, *lr_sequence(training.losses)[:-1]])
    training.scheduler.finish()
    (record,) = daemon.runs.values()
    assert (record.losses, record.finished) == (pytest.approx(training.losses), True)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("is_made_first", [False, True])
def test_an_interrupted_training_equals_an_undisturbed_one(
    advisor: mlrs.Advisor, daemon: FakeDaemon, *, late: bool, is_made_first: bool
) -> None:
    """A checkpoint without the scheduler continues the run: it comes with the optimizer's state."""
    whole = Training(advisor)
    whole.train(9, late=late)
    first = Training(advisor)
    first.train(4, late=late)
    file = first.save()
    first.train(3, late=late)  # is lost
    if is_made_first:
        second = Training(advisor)
        second.load(file)
    else:
        second = Training(advisor, saved=file)
    second.updates = 4
    second.scheduler.step_update(4)  # as timm's script says where it begins
    second.train(5, late=late)
    assert first.used[:4] + second.used == whole.used
    assert torch.equal(second.weights(), whole.weights())
    assert len(daemon.runs) == 2
    assert "mlrs" not in second.optimizer.param_groups[0]


def test_a_count_that_goes_on_elsewhere(advisor: mlrs.Advisor) -> None:
    """Where a loop counts on after updates that are not there, as after an epoch cut short, it may."""
    first = Training(advisor)
    first.train(4)
    second = Training(advisor, saved=first.save())
    second.updates = 10
    second.scheduler.step_update(10)
    second.train(2)
    assert second.used == scaled(lr_sequence(first.losses + second.losses)[4:])


def test_calls_out_of_order(advisor: mlrs.Advisor) -> None:
    """A wrong count, and an update whose loss nobody told, are errors that say what to call."""
    training = Training(advisor)
    training.train(2)
    with pytest.raises(mlrs.errors.UsageError, match="num_updates is 2, and 3 was expected"):
        training.scheduler.step_update(2, metric=1.0)
    with pytest.raises(mlrs.errors.UsageError, match="no loss was observed"):
        training.scheduler.step_update(3)
    with pytest.raises(mlrs.errors.InvalidArgumentError, match="num_updates"):
        training.scheduler.step_update(-1)
    training.scheduler.step(1)
    training.train(1)


def test_accumulation_and_states(advisor: mlrs.Advisor) -> None:
    """Micro-batches make one observation, and a state that is loaded by hand continues its run."""
    scheduler = Training(advisor, accumulation_steps=2).scheduler
    for loss in (1.0, 3.0):
        scheduler.observe(loss)
    scheduler.optimizer.step()
    scheduler.step_update(1)
    state = scheduler.state_dict()
    assert (state["step"], state["last_lr"]) == (1, lr_sequence([2.0])[0])
    again = Training(advisor).scheduler
    again.load_state_dict(state)
    assert again.run is not None
    assert again.run.id == state["run_id"]
    again.step_update(2, metric=1.0)
    assert again.state_dict()["last_lr"] == lr_sequence([2.0, 1.0])[1]


def test_a_scheduler_is_collected(advisor: mlrs.Advisor) -> None:
    """The optimizer's hooks do not keep a scheduler, and save nothing once it is gone."""
    training = Training(advisor)
    gone, optimizer = weakref.ref(training.scheduler), training.optimizer
    del training
    gc.collect()
    assert gone() is None
    assert "mlrs" not in optimizer.state_dict()["param_groups"][0]
