"""The four tasks of kinds of networks that no other task has."""

from __future__ import annotations

import pytest
import torch

from mlrs_bench.report.figures.scope import UNTOUCHED_TASKS
from mlrs_bench.rules import RULES
from mlrs_bench.task import Splits, Task
from mlrs_bench.tasks import TASKS
from mlrs_bench.training import draw_batches, first_network, mean_loss

STEPS = 200
RATES = {"ratings-factors": 0.03, "coordinates-sine": 3e-3, "adding-gru": 3e-3, "digits-mixer": 3e-3}
"""Learning rates for AdamW that suit the tasks."""


@pytest.fixture(params=sorted(UNTOUCHED_TASKS))
def task(request: pytest.FixtureRequest) -> Task:
    """Each of the tasks."""
    return TASKS[request.param]()


def test_data_is_the_same_in_every_process(task: Task) -> None:
    """Drawn anew, whatever was drawn before, the data is the same, and the global generator is left alone."""
    first = task.load()
    task.load.cache_clear()  # type: ignore[attr-defined]  # its data is kept
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again = task.load()
    assert again is not first
    assert torch.equal(before, torch.get_rng_state())
    assert task.fingerprint(again) == task.fingerprint(first)


def test_outputs_are_what_the_loss_takes(task: Task) -> None:
    """A network's output has the shape of the targets, or a logit for each class, and its loss is finite.

    Of (n, 1) outputs and (n,) targets, the mean squared error would be one of n * n pairs.
    """
    examples = task.load().train[: task.batch_size]
    outputs = first_network(task, 0)(examples.inputs)
    if task.num_classes is None:
        assert outputs.shape == examples.targets.shape == (task.batch_size, 1)
    else:
        assert outputs.shape == (task.batch_size, task.num_classes)
        assert examples.targets.shape == (task.batch_size,)
        assert set(task.load().train.targets.tolist()) == set(range(task.num_classes))
    loss = task.loss(outputs, examples.targets)
    assert loss.shape == ()
    assert loss.isfinite()
    assert outputs.dtype == torch.float32


def test_losses_begin_where_nothing_is_known(task: Task) -> None:
    """Targets have mean 0 and variance 1, so that a first loss is about 1; with classes it is about ln C."""
    splits = task.load()
    first = mean_loss(task, first_network(task, 0), splits.test)
    if task.num_classes is None:
        every = torch.cat([part.targets for part in parts(splits)])
        assert every.mean().item() == pytest.approx(0.0, abs=0.02)
        assert every.std().item() == pytest.approx(1.0, abs=0.02)
        assert first == pytest.approx(1.0, abs=0.25)
    else:
        assert first == pytest.approx(torch.tensor(task.num_classes).log().item(), abs=0.25)


def parts(splits: Splits) -> list:
    """Return the three parts of the data."""
    return [splits.train, splits.valid, splits.test]


def test_a_short_training_lowers_the_loss(task: Task) -> None:
    """AdamW at a sane learning rate makes something of each task in 200 steps."""
    splits, network = task.load(), first_network(task, 0)
    before = mean_loss(task, network, splits.valid)
    optimizer = RULES["adamw"].build(network.parameters(), RATES[task.name], task.weight_decay["adamw"])
    network.train()
    for rows in draw_batches(task, len(splits.train), 0)[:STEPS]:
        optimizer.zero_grad()
        inputs, targets = splits.train.take(rows)
        task.loss(network(inputs), targets).backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
    assert mean_loss(task, network, splits.valid) < 0.85 * before


def test_networks_are_as_large_as_is_said(task: Task) -> None:
    """The description of a task has the number of parameters, rounded to two digits."""
    count = sum(parameter.numel() for parameter in task.network().parameters())
    assert f": {float(f'{count:.2g}'):,.0f} parameters" in (TASKS[task.name].__doc__ or "")
