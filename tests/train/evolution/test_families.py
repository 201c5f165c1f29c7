"""Every family of tasks can be trained on, by many copies at once."""

from __future__ import annotations

import pytest
import torch

from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.trainings.families import FAMILIES
from mlrs_train.evolution.trainings.families.data import PACKAGED
from mlrs_train.evolution.trainings.problem import batched

DRAWS = 4


@pytest.mark.parametrize("name", FAMILIES)
def test_samples_are_valid(name: str) -> None:
    """Losses and gradients of a fresh task are finite, and a step down the gradient lowers the loss."""
    for key in range(DRAWS):
        problem = FAMILIES[name].sample(Draw(6, key))
        rows = problem.copies(2)
        batch = problem.train.take(Draw(key).integers(len(problem.train), problem.batch_size))
        losses, gradients = problem.value_and_grad(rows, batch)
        assert losses.shape == (2,)
        assert gradients.shape == rows.shape
        assert losses.isfinite().all()
        assert gradients.isfinite().all()
        assert (losses > 0).all()
        assert problem.evaluate(rows).isfinite().all()
        step = 1e-3 * losses[:, None] / gradients.square().sum(1, keepdim=True)
        lower, _ = problem.value_and_grad(rows - step * gradients, batch)
        assert (lower < losses).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_copies_do_not_see_each_other(name: str) -> None:
    """A copy's loss and gradient are what they are alone, even beside NaN."""
    problem = FAMILIES[name].sample(Draw(7))
    rows = problem.copies(3)
    rows[1] += 0.05 * Draw(1).normal(rows.shape[1])
    rows[2] = torch.nan
    batch = problem.train.take(torch.arange(problem.batch_size))
    losses, gradients = problem.value_and_grad(rows, batch)
    for copy in range(2):
        loss, gradient = problem.value_and_grad(rows[copy : copy + 1], batch)
        torch.testing.assert_close(losses[copy], loss[0])
        torch.testing.assert_close(gradients[copy], gradient[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_task_is_its_key(name: str) -> None:
    """Equal keys give equal tasks, weights and data; other keys give others."""
    first, again, other = (FAMILIES[name].sample(Draw(6, key)) for key in (1, 1, 2))
    assert first.train.digest() == again.train.digest() != other.train.digest()
    assert first.valid.digest() == again.valid.digest()
    assert torch.equal(first.copies(1), again.copies(1))


def test_data_of_the_judges_is_not_used() -> None:
    """Of packaged data, only what the documentation names is trained on."""
    assert PACKAGED == ("wine", "breast_cancer", "iris")


def test_a_family_needs_one_loss_only() -> None:
    """`batched` makes the losses of many copies of a loss of one."""
    losses = batched(lambda params, batch: (params["w"] * batch[0] - batch[1]).square().mean())
    values = losses({"w": torch.tensor([0.0, 1.0])}, (torch.ones(3), torch.ones(3)))
    assert values.tolist() == [1.0, 0.0]
