"""Meta mode in the benchmark: what a network that goes on learning is shown, and what it changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

import mlrs
from mlrs_bench.cell import Cell
from mlrs_bench.methods import Method
from mlrs_bench.methods.adapting import draw_validation
from mlrs_bench.task import Task
from mlrs_core.config import DEFAULT_META
from tests.bench.loop import Loop

Train = Callable[..., Cell]
EVERY = DEFAULT_META.every or 0


def test_validation_examples_come_in_batches_without_a_repetition(tiny: Task, advisor: mlrs.Advisor) -> None:
    """Each pass over the validation examples has every one once, in an order that the seed alone decides."""
    training = Loop(tiny, "sgd", advisor).training
    count = len(training.valid) // tiny.batch_size
    batches, same = draw_validation(training), draw_validation(training)
    other = next(draw_validation(replace(training, seed=training.seed + 1)))
    passes = [torch.cat([next(batches).inputs for _ in range(count)]) for _ in range(2)]
    whole = training.valid.inputs.sort(dim=0).values
    assert all(torch.equal(each.sort(dim=0).values, whole) for each in passes)
    assert not torch.equal(*passes)
    again = next(same).inputs
    assert torch.equal(again, passes[0][: tiny.batch_size])
    assert not torch.equal(again, other.inputs)


def test_the_network_learns_at_updates_and_not_before(train_tiny: Train) -> None:
    """The learning rates are the frozen network's up to the first update, and others from there on."""
    frozen, learning = train_tiny("mlr-snet"), train_tiny("mlr-snet-meta")
    same = [mine == theirs for mine, theirs in zip(learning.lr_curve, frozen.lr_curve, strict=True)]
    assert same[: EVERY - 1] == [True] * (EVERY - 1)
    assert not all(same)
    assert learning.held == 0


@pytest.mark.slow
def test_the_papers_network_begins_at_random_weights(train_tiny: Train, methods: dict[str, Method]) -> None:
    """It is another network than the one that was meta-trained, the same one in every training."""
    assert methods["paper-meta"].identity != methods["paper"].identity
    first, second = train_tiny("paper-meta"), train_tiny("paper-meta")
    assert first.lr_curve == second.lr_curve
    assert first.lr_curve != train_tiny("paper").lr_curve
