"""The copy of a PyTorch training in host memory: what is in it, and how it is put back."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from mlrs.errors import InvalidArgumentError
from mlrs.torch.rescue.training_copy import TrainingCopy
from tests.client.torch.rescue.trainings import OPTIMIZERS, Training


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("before", [0, 3])
def test_a_copy_is_put_back_in_place(kind: str, before: int) -> None:
    """Weights, buffers and the optimizer's state are as they were, to the bit, in the same tensors."""
    training = Training(kind)

    def take(steps: int) -> None:
        for _ in range(steps):
            training.optimizer.step(training.loss) if kind == "lbfgs" else (
                training.loss(),
                training.optimizer.step(),
            )

    take(before)
    copy = TrainingCopy(training.optimizer, training.model, None, is_on=True)
    copy.keep()
    expected, places = training.state(), training.places()
    for _ in range(2):
        take(3)
        training.loss(is_bad=True)
        if kind != "lbfgs":
            training.optimizer.step()
        assert training.state() != expected
        assert copy.restore()
        assert training.state() == expected
    now = training.places()
    assert {name: now[name] for name in places} == places
    take(1)
    assert training.is_finite()


def test_a_copy_keeps_nothing_that_the_optimizer_has_dropped() -> None:
    """What left an optimizer's history takes no memory on the device, and is made anew if it is put back."""
    training = Training("lbfgs")
    (weights,) = (group["params"] for group in training.optimizer.param_groups)
    training.optimizer = torch.optim.LBFGS(weights, lr=0.1, max_iter=3, history_size=2)
    training.optimizer.step(training.loss)
    copy = TrainingCopy(training.optimizer, training.model, None, is_on=True)
    copy.keep()
    expected, (state,) = training.state(), training.optimizer.state.values()
    history = [weakref.ref(one) for one in state["old_dirs"]]
    assert history
    for _ in range(2):
        training.optimizer.step(training.loss)
        training.optimizer.step(training.loss)
        gc.collect()
        assert [one() for one in history] == [None] * len(history)
        assert copy.restore()
        assert training.state() == expected
        history = [weakref.ref(one) for one in state["old_dirs"]]


def test_only_what_the_optimizer_has_is_copied_without_a_model() -> None:
    """Without the model, buffers stay as they are; gradients, settings and generators always do."""
    training = Training()
    copy = TrainingCopy(training.optimizer, None, None, is_on=True)
    copy.keep()
    training.loss()
    training.optimizer.step()
    buffers = {name: one.clone() for name, one in training.model.named_buffers()}
    training.optimizer.param_groups[0]["lr"] = 0.7
    gradients = [one.grad.clone() for one in training.model.parameters() if one.grad is not None]
    torch.manual_seed(5)
    drawn = torch.get_rng_state()
    assert copy.restore()
    assert all(torch.equal(one, buffers[name]) for name, one in training.model.named_buffers())
    assert training.optimizer.param_groups[0]["lr"] == 0.7
    now = [one.grad for one in training.model.parameters() if one.grad is not None]
    assert all(torch.equal(one, other) for one, other in zip(now, gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), drawn)


def test_nothing_is_restored_without_a_copy() -> None:
    """Before the first copy, after it was dropped, and where rescue is off, there is nothing to put back."""
    training = Training()
    copy, off = (TrainingCopy(training.optimizer, None, None, is_on=is_on) for is_on in (True, False))
    assert not copy.restore()
    copy.keep()
    off.keep()
    assert copy.restore()
    copy.forget()
    assert not copy.restore()
    assert not off.restore()


def test_a_copy_that_fails_ends_no_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a copy cannot be made, as for want of memory, one warning says so, and there is none."""
    training = Training()
    copy = TrainingCopy(training.optimizer, None, None, is_on=True)
    monkeypatch.setattr(
        "mlrs.torch.copies._copied_to_host", lambda _: (_ for _ in ()).throw(MemoryError("full"))
    )
    copy.keep()
    copy.keep()
    assert [record.message for record in caplog.records] == [
        "this training keeps no copy to restore from now on: MemoryError('full')"
    ]
    assert not copy.restore()


def test_the_model_must_be_one() -> None:
    """Something else as the model is an error that names the argument."""
    with pytest.raises(InvalidArgumentError, match="must be a torch") as caught:
        TrainingCopy(Training().optimizer, "model", None, is_on=True)
    assert caught.value.field == "model"


def test_a_copy_that_does_not_fit_any_more_ends_no_training(caplog: pytest.LogCaptureFixture) -> None:
    """Where a tensor has another shape than when it was copied, a warning says so, and training goes on."""
    training = Training()
    copy = TrainingCopy(training.optimizer, training.model, None, is_on=True)
    copy.keep()
    weight = next(iter(training.model.parameters()))
    with torch.no_grad():
        weight.set_(torch.zeros(7))
    assert not copy.restore()
    assert "could not be put back" in caplog.text
    assert "learning rates alone are lowered" in caplog.text


def test_a_restore_is_told_to_the_user(caplog: pytest.LogCaptureFixture) -> None:
    """When a copy is put back, the log says why."""
    training = Training()
    copy = TrainingCopy(training.optimizer, training.model, None, is_on=True)
    copy.keep()
    assert copy.restore()
    assert "the training blew up or overfits: weights and optimizer state are back" in caplog.text


@pytest.mark.parametrize(("free", "has_copy"), [(10**9, True), (10, False), (None, True)])
def test_no_copy_is_made_that_the_host_has_no_room_for(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    free: int | None,
    *,
    has_copy: bool,
) -> None:
    """A copy is compared with the memory that is free; where that is unknown, it is made."""
    training = Training()
    monkeypatch.setattr("mlrs.torch.rescue.training_copy.free_memory", lambda: free)
    copy = TrainingCopy(training.optimizer, training.model, None, is_on=True)
    copy.keep()
    assert ("GiB are free" in caplog.text) != has_copy
    assert copy.restore() == has_copy


def test_copies_of_all_processes_of_a_host_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits once does not fit as often as a host has processes."""
    training = Training()
    size = sum(weight.nbytes for weight in training.model.parameters())
    monkeypatch.setattr("mlrs.torch.rescue.training_copy.free_memory", lambda: 8 * size)
    kept = []
    for processes in ("1", "64"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        copy = TrainingCopy(training.optimizer, None, None, is_on=True)
        copy.keep()
        kept.append(copy.restore())
    assert kept == [True, False]
