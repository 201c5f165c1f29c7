"""One training: what is paired, and what counts as diverged."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mlrs_bench.cell import Cell
from mlrs_bench.task import Task
from mlrs_bench.training import draw_batches, first_network

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


@pytest.mark.parametrize("base_lr", [1e4, 1e30])
def test_divergence_is_said_and_capped(train_tiny: Train, base_lr: float) -> None:
    """A training that ends far above its first loss, or at none, counts with its first loss, and says so."""
    cell = train_tiny("constant", base_lr=base_lr)
    assert cell.diverged
    assert cell.test_loss == cell.initial_test_loss
    assert cell.valid_loss < 10


def test_non_finite_losses_are_held(train_tiny: Train) -> None:
    """The daemon holds its advice for a loss that is not finite, and the cell counts it."""
    assert train_tiny("constant", base_lr=1e30, seed=105).held == 1


def test_cells_say_what_they_are(train_tiny: Train) -> None:
    """A cell goes through JSON unchanged, and knows its key."""
    cell = train_tiny("l4", seed=106)
    assert Cell.from_json(cell.to_json()) == cell
    assert (cell.key.method, cell.key.seed, cell.row) == ("l4", 106, ("tiny", "sgd"))
    assert 0.3 < (cell.test_accuracy or 0) <= 1
    assert cell.identity == "l4 1"
