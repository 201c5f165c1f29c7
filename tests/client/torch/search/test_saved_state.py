"""Saved states: trials change everything that a step can change, and all of it is put back to the bit."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mlrs.errors import InvalidArgumentError
from tests.client.torch.search.trainings import OPTIMIZERS, Training, alive, own_generators, same


@pytest.fixture(autouse=True)
def _generators() -> Iterator[None]:
    with own_generators():
        yield


@pytest.mark.parametrize("save_to", ["device", "cpu"])
@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_everything_is_put_back(kind: str, before: int, save_to: str) -> None:
    """Weights, buffers, gradients, modes, optimizer and generators are as before, every time."""
    training = Training(kind)
    training.train(before)
    bits, saved = training.bits(), training.save(save_to=save_to)
    for steps in (1, 4):
        training.train(steps)
        training.model.eval()
        training.optimizer.param_groups[0]["lr"] = 7.0
        assert not same(training.bits(), bits)
        saved.restore()
        assert same(training.bits(), bits)
    if not before:
        assert dict(training.optimizer.state) == {}


@given(
    kind=st.sampled_from([*OPTIMIZERS]),
    scaled=st.booleans(),
    before=st.integers(0, 4),
    trials=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    after=st.integers(1, 5),
)
def test_training_goes_on_as_without_trials(
    kind: str, *, scaled: bool, before: int, trials: list[int], after: int
) -> None:
    """The losses and the state after any trials are, to the bit, those of a training that made none."""
    scaled = scaled and kind != "lbfgs"
    with own_generators():
        undisturbed = Training(kind, scaled=scaled)
        undisturbed.train(before)
        losses = undisturbed.train(after)
        expected = undisturbed.bits()
        training = Training(kind, scaled=scaled)
        training.train(before)
        saved = training.save()
        for steps in trials:
            saved.restore()
            training.train(steps)
        saved.restore()
        assert training.train(after) == losses
        assert same(training.bits(), expected)


def test_objects_stay_the_same() -> None:
    """Values are put back into the same tensors and dicts: those that graphs and schedulers hold."""
    training = Training("adam-tensor-lr")
    training.train(2)
    optimizer, model = training.optimizer, training.model
    weight, frozen = model[0].weight, model[5].bias
    frozen.grad = None
    groups = [(group, group["lr"], group["params"]) for group in optimizer.param_groups]
    entries = optimizer.state[weight]
    held = dict(entries)
    gradient, mean = weight.grad, model[2].mean
    saved = training.save()
    training.train(2)
    optimizer.param_groups[0]["lr"].fill_(3.0)
    optimizer.param_groups[1]["lr"] = 5.0
    optimizer.param_groups[0]["extra"] = 1
    weight.grad = torch.ones_like(weight)
    assert frozen.grad is not None
    saved.restore()
    for group, (before, lr, params) in zip(optimizer.param_groups, groups, strict=True):
        assert group is before
        assert group["lr"] is lr
        assert group["params"] is params
        assert float(lr) == pytest.approx(0.01)
        assert "extra" not in group
    assert weight.grad is gradient
    assert frozen.grad is None
    assert optimizer.state[weight] is entries
    assert all(entries[name] is value for name, value in held.items())
    assert model[2].mean is mean
    assert [*optimizer.state] == [weight for group in optimizer.param_groups for weight in group["params"]]


def test_a_buffer_that_was_not_there() -> None:
    """A buffer that is `None` at the start, and a tensor in training, is `None` again."""
    training = Training()
    saved = training.save()
    training.step()
    assert training.model[2].last is not None
    saved.restore()
    assert training.model[2].last is None
    assert "last" in training.model[2]._buffers


def test_values_that_are_not_finite() -> None:
    """Trials that diverge leave NaN and infinity everywhere, and both may be in what is saved, too."""
    training = Training("adam")
    training.train(2)
    with torch.no_grad():
        training.model[0].bias[:3] = torch.tensor([torch.nan, torch.inf, -0.0])
    bits, saved = training.bits(), training.save()
    training.step()
    assert all(weight.isnan().any() for weight in training.model.parameters())
    saved.restore()
    assert same(training.bits(), bits)
    assert torch.signbit(training.model[0].bias[2])


def test_gradients_of_weights_that_the_optimizer_lacks() -> None:
    """A weight of the model that another optimizer has gathers gradients in trials, and loses them after."""
    training = Training()
    inner = training.model[0].weight
    del training.optimizer.param_groups[0]["params"][0]
    saved = training.save()
    training.train(2)
    assert inner.grad is not None
    saved.restore()
    assert inner.grad is None
    inner.grad = torch.ones_like(inner)
    kept, saved = inner.grad, training.save()
    training.train(2)
    assert not torch.equal(inner.grad, torch.ones_like(inner))
    saved.restore()
    assert inner.grad is kept
    assert torch.equal(kept, torch.ones_like(inner))


def test_weights_outside_the_model() -> None:
    """Weights that the optimizer has and the model lacks, as those of a loss, are saved with it."""
    training = Training()
    temperature = nn.Parameter(torch.tensor(2.0))
    training.optimizer.add_param_group({"params": [temperature]})
    saved = training.save()
    temperature.grad = torch.tensor(1.0)
    training.optimizer.step()
    assert float(temperature.detach()) != 2.0
    saved.restore()
    assert float(temperature.detach()) == 2.0
    assert temperature.grad is None


@pytest.mark.parametrize("save_to", ["device", "cpu"])
def test_shared_weights(save_to: str) -> None:
    """Weights that two layers share stay shared, and are copied once."""
    training = Training()
    training.model[5] = nn.Linear(4, 4)
    training.model.append(nn.Linear(4, 4))
    training.model[6].weight = training.model[5].weight
    bits, before = training.bits(), alive((4, 4))
    saved = training.save(training.model[6], save_to=save_to)
    assert alive((4, 4)) == before + 1
    training.step()
    saved.restore()
    assert same(training.bits(), bits)
    assert training.model[6].weight is training.model[5].weight


# ---------------------------------------------------------------------------------- AMP scalers


@pytest.mark.parametrize("before", [0, 3])
def test_a_scaler(before: int) -> None:
    """The scale and its count of good steps are as before, also of a scaler that was not used yet."""
    training = Training(scaled=True)
    assert training.scaler is not None
    training.train(before)
    bits, saved = training.bits(), training.save()
    training.train(5)
    assert training.scaler.get_scale() != bits["scaler"]["scale"]
    saved.restore()
    assert training.scaler.get_scale() == bits["scaler"]["scale"]
    assert same(training.bits(), bits)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_of_a_scaler_that_was_interrupted(parts: int) -> None:
    """After a trial that ended between `unscale_` or `step` and `update`, the scaler expects a new step."""
    training = Training(scaled=True)
    training.train(1)
    assert training.scaler is not None
    saved = training.save()
    training.scaler.scale(training.loss()).backward()
    training.scaler.unscale_(training.optimizer)
    if parts == 2:
        training.scaler.step(training.optimizer)
    saved.restore()
    training.optimizer.zero_grad()
    training.scaler.scale(training.loss()).backward()
    training.scaler.unscale_(training.optimizer)
    training.scaler.step(training.optimizer)
    training.scaler.update()


def test_a_scaler_that_is_off() -> None:
    """A disabled scaler has no state, and is let through."""
    training = Training()
    training.scaler = torch.amp.GradScaler("cpu", enabled=False)
    bits, saved = training.bits(), training.save()
    training.train(2)
    saved.restore()
    assert same(training.bits(), bits)


# ------------------------------------------------------------------------------------ also_save


class Counter:
    """An object with a `state_dict` that hands out its own list."""

    def __init__(self) -> None:
        self.seen = [0]

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state over."""
        self.seen = state["seen"]


@pytest.mark.parametrize("save_to", ["device", "cpu"])
def test_what_else_steps_change(save_to: str) -> None:
    """Averaged models, tensors, other optimizers, generators and objects with a state are put back."""
    training = Training()
    averaged = torch.optim.swa_utils.AveragedModel(training.model[:2])
    other_net = nn.Linear(2, 1)
    other = torch.optim.Adam(other_net.parameters(), lr=0.01)
    tensor, counter, generator = torch.arange(4.0), Counter(), torch.Generator().manual_seed(5)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1)

    def change() -> None:
        training.step()
        averaged.update_parameters(training.model[:2])
        scaler.scale(other_net(torch.randn(3, 2, generator=generator)).sum()).backward()
        scaler.step(other)
        scaler.update()
        tensor.add_(1.0)
        counter.seen.append(1)

    def bits() -> Any:
        return copy.deepcopy(
            [
                averaged.state_dict(),
                other_net.state_dict(),
                other.state_dict(),
                [weight.grad for weight in other_net.parameters()],
                tensor,
                counter.seen,
                generator.get_state(),
                scaler.state_dict(),
            ]
        )

    before = bits()
    saved = training.save(averaged, tensor, other, counter, generator, scaler, save_to=save_to)
    for _ in range(2):
        change()
        change()
        assert not any(map(same, bits(), before))
        saved.restore()
        assert same(bits(), before)


@pytest.mark.parametrize("wrong", ["ema", None, 3.0, object(), np.zeros(2)])
def test_objects_that_cannot_be_saved(wrong: Any) -> None:
    """An object without a state is refused, and the error names its type."""
    with pytest.raises(InvalidArgumentError, match=f"one is {type(wrong).__name__}") as caught:
        Training().save(wrong)
    assert caught.value.field == "also_save"
