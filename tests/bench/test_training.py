"""One training: what is paired, and what counts as diverged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

import mlrs
from mlrs_bench.cell import Cell, CellKey
from mlrs_bench.errors import TrainingError
from mlrs_bench.methods import Control, Method, Training
from mlrs_bench.task import Task, cross_entropy
from mlrs_bench.training import CAP, counted_loss, draw_batches, first_network, train

Train = Callable[..., Cell]


def test_an_epoch_sees_every_example_once(tiny: Task) -> None:
    """Batches are drawn without replacement until all examples were seen; another seed draws others."""
    batches = draw_batches(tiny, 100, seed=5)
    assert batches.shape == (20, 10)
    assert sorted(batches[:10].flatten().tolist()) == list(range(100))
    assert sorted(batches[10:].flatten().tolist()) == list(range(100))
    assert torch.equal(batches, draw_batches(tiny, 100, seed=5))
    assert not torch.equal(batches, draw_batches(tiny, 100, seed=6))


def test_a_seed_decides_the_weights(tiny: Task) -> None:
    """Equal seeds give equal weights, other seeds others."""
    first, again, other = (first_network(tiny, seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_a_training_repeats(train_tiny: Train) -> None:
    """The same training gives the same losses and LRs, bit for bit."""
    one, two = train_tiny("l4", seed=104), train_tiny("l4", seed=104)
    assert (one.test_loss, one.train_curve, one.lr_curve) == (two.test_loss, two.train_curve, two.lr_curve)


def test_steps_spent_before_a_training_are_fewer_in_it(
    tiny: Task, methods: dict[str, Method], advisor: mlrs.Advisor
) -> None:
    """A control that spent three of twenty steps gets the first seventeen batches; curves end there."""

    def spent(training: Training) -> Control:
        control = methods["l4"].control(training)
        control.spent = 3
        return control

    key = CellKey(task="tiny", optimizer="sgd", method="l4", seed=104)
    whole, cut = (
        train(key, tiny, tiny.load(), method, advisor, "never-made")
        for method in (methods["l4"], replace(methods["l4"], control=spent))
    )
    assert (cut.train_curve, cut.lr_curve) == (whole.train_curve[:17], whole.lr_curve[:17])
    assert cut.test_loss != whole.test_loss
    assert cut.horizon == 20


def test_searches_see_the_batches_of_the_training(
    tiny: Task, methods: dict[str, Method], advisor: mlrs.Advisor
) -> None:
    """However often batches are asked for, they come from the first one on, and the training has the same."""
    kept: list[Training] = []

    def control(training: Training) -> Control:
        kept.append(training)
        for _ in range(2):
            next(training.batches())
        return methods["l4"].control(training)

    splits, key = tiny.load(), CellKey(task="tiny", optimizer="sgd", method="l4", seed=104)
    cell = train(key, tiny, splits, replace(methods["l4"], control=control), advisor, "never-made")
    plain = train(key, tiny, splits, methods["l4"], advisor, "never-made")
    assert cell.train_curve == plain.train_curve
    expected = [splits.train.take(rows) for rows in draw_batches(tiny, len(splits.train), 104)]
    for _ in range(2):
        batches = list(kept[0].batches())
        assert len(batches) == len(expected) == 20
        for batch, known in zip(batches, expected, strict=True):
            assert all(torch.equal(*pair) for pair in zip(batch, known, strict=True))


@pytest.mark.parametrize("base_lr", [30.0, 1e30])
def test_divergence_is_said_and_capped(train_tiny: Train, base_lr: float) -> None:
    """A training that ends far above its first loss, or at none, counts as four times that, and says so."""
    cell = train_tiny("constant", base_lr=base_lr)
    assert cell.diverged
    assert cell.test_loss == CAP * cell.initial_test_loss
    assert 4 < cell.valid_loss < 10
    if base_lr == 30:
        assert cell.raw_test_loss is not None
        assert cell.raw_test_loss > cell.test_loss
    else:
        assert cell.raw_test_loss is None
    assert Cell.from_json(json.loads(json.dumps(cell.to_json(), allow_nan=False))) == cell


def test_a_worse_end_never_counts_as_the_better_one() -> None:
    """What a final loss counts as rises with it, up to the cap, where losses that are not finite are."""
    ends = [0.5, 1.0, 2.9, 3.1, 3.9, 4.1, 1e9, math.inf, math.nan]
    assert [counted_loss(end * 2.0, 2.0) for end in ends] == [1.0, 2.0, 5.8, 6.2, 7.8, 8.0, 8.0, 8.0, 8.0]


def test_an_uncapped_end_is_as_measured(train_tiny: Train) -> None:
    """A training that went well counts with the loss it ended at."""
    cell = train_tiny("constant", base_lr=0.01)
    assert cell.raw_test_loss == cell.test_loss < cell.initial_test_loss
    assert not cell.diverged


@pytest.mark.parametrize("factor", [math.nan, -1.0])
def test_a_task_must_begin_at_a_positive_loss(
    tiny: Task, methods: dict[str, Method], advisor: mlrs.Advisor, factor: float
) -> None:
    """A task whose first loss can be the measure of nothing is refused by name."""
    task = replace(tiny, loss=lambda outputs, targets: factor * cross_entropy(outputs, targets))
    key = CellKey(task="tiny", optimizer="sgd", method="l4", seed=1)
    with pytest.raises(TrainingError, match="tiny: the loss before the first step must be a positive number"):
        train(key, task, task.load(), methods["l4"], advisor, "never-made")


def test_non_finite_losses_are_held(train_tiny: Train) -> None:
    """The daemon holds its advice for a loss that is not finite, and the cell counts it."""
    assert train_tiny("constant", base_lr=1e30, seed=105).held == 1


def test_cells_say_what_they_are(train_tiny: Train) -> None:
    """A cell goes through JSON unchanged, and knows its key."""
    cell = train_tiny("l4", seed=106)
    assert Cell.from_json(cell.to_json()) == cell
    assert (cell.key.method, cell.key.seed, cell.row) == ("l4", 106, ("tiny", "sgd"))
    assert 0.3 < (cell.test_accuracy or 0) <= 1
    assert cell.identity == "l4 2"
