"""The tasks that networks are trained on."""

from __future__ import annotations

import math

import pytest
import torch

from mlrs_core.errors import InvalidFieldError
from mlrs_train.tasks import load_tasks


@pytest.mark.parametrize("name", ["digits-cnn", "topics-char"])
def test_task_is_whole(name: str) -> None:
    """A fresh base model has the loss of a guess, and a gradient in every parameter."""
    task = load_tasks([name])[name]
    params = task.init(torch.Generator().manual_seed(1))
    leaves = {key: tensor.requires_grad_() for key, tensor in params.items()}
    batch = task.train.take(torch.arange(task.batch_size))
    loss = task.loss(leaves, batch)
    assert loss.item() == pytest.approx(math.log(task.num_classes), rel=0.05)
    for gradient in torch.autograd.grad(loss, list(leaves.values())):
        assert gradient.abs().sum() > 0
    assert int(task.train.targets.max()) < task.num_classes


@pytest.mark.parametrize("name", ["digits-cnn", "topics-char"])
def test_parts_are_apart_and_fixed(name: str) -> None:
    """Loaded twice, the parts are the same; no test example is one to train on."""
    once, again = load_tasks([name])[name], load_tasks([name])[name]
    assert once.train.digest() == again.train.digest()
    train = {tuple(row) for row in once.train.inputs.flatten(1).tolist()}
    test = {tuple(row) for row in once.test.inputs.flatten(1).tolist()}
    assert len(test - train) > 0.95 * len(test)  # boilerplate repeats in the text


def test_initial_parameters_come_from_the_generator() -> None:
    """The same generator gives the same parameters, whatever the global one does."""
    task = load_tasks(["digits-cnn"])["digits-cnn"]
    first = task.init(torch.Generator().manual_seed(5))
    torch.rand(3)
    state = torch.get_rng_state()
    second = task.init(torch.Generator().manual_seed(5))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_unknown_task_lists_the_known() -> None:
    """An unknown task is refused with the names of those that are there."""
    with pytest.raises(InvalidFieldError, match="'mnist' is unknown; known: digits-cnn, topics-char"):
        load_tasks(["digits-cnn", "mnist"])
