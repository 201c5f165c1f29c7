"""One training: from a key to a cell.

Within a row and a seed, trainings begin at the same weights and see the same batches; only the LR
differs. Everything random comes from the seed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import mlrs
from mlrs_bench.cell import Cell, CellKey
from mlrs_bench.curve import Curves
from mlrs_bench.errors import TrainingError
from mlrs_bench.methods import Control, Method, Training
from mlrs_bench.rules import RULES
from mlrs_bench.task import Examples, Splits, Task

CHUNK = 1000
"""Examples that are judged at once."""
REFRESH_BATCHES = 50
"""Batches that running statistics are computed anew from."""
DIVERGED = 3.0
"""A training that ends above this many times its first test loss has diverged."""
CAP = 4.0
"""A final loss counts as at most this many times the first one, as in meta-training by evolution: the worse
run never counts as the better one, and one that explodes does not decide a mean by how far."""


def train(
    key: CellKey, task: Task, splits: Splits, method: Method, advisor: mlrs.Advisor, run_id: str
) -> Cell:
    """Train once, and return the result.

    Raises:
        mlrs.MlrsError: the daemon refuses the run, or is out of reach.
        TrainingError: a loss before the first step is not a positive number.
    """
    network = first_network(task, key.seed)
    batches = draw_batches(task, len(splits.train), key.seed)
    first_valid = _first_loss(task, network, splits.valid)
    first_test = _first_loss(task, network, splits.test)
    control = method.control(
        Training(
            task=task,
            rule=RULES[key.optimizer],
            network=network,
            valid=splits.valid,
            batches=lambda: map(splits.train.take, batches),
            seed=key.seed,
            base_lr=key.base_lr,
            start=key.start,
            run_id=run_id,
            advisor=advisor,
        )
    )
    curves = Curves(task.horizon)
    since = time.perf_counter()
    finite = _steps(task, network, control, splits.train, batches, curves)
    control.finish(lambda: _refresh(network, splits.train, batches))
    seconds = time.perf_counter() - since
    valid = mean_loss(task, network, splits.valid) if finite else math.nan
    test = mean_loss(task, network, splits.test) if finite else math.nan
    return Cell(
        **vars(key),
        horizon=task.horizon,
        test_loss=counted_loss(test, first_test),
        raw_test_loss=test if math.isfinite(test) else None,
        test_accuracy=_accuracy(task, network, splits.test),
        valid_loss=counted_loss(valid, first_valid),
        diverged=not test <= DIVERGED * first_test,  # so that NaN is
        initial_test_loss=first_test,
        train_curve=curves.losses,
        lr_curve=curves.lrs,
        held=control.held,
        seconds=round(seconds, 3),
        identity=method.identity,
    )


def first_network(task: Task, seed: int) -> nn.Module:
    """Return the network as a training of this seed begins; what it draws later is seeded as well."""
    torch.manual_seed(seed)
    network = task.network()
    torch.manual_seed(seed)
    return network


def draw_batches(task: Task, count: int, seed: int) -> Tensor:
    """Return the examples of each step, (horizon, batch size): all in random order, again and again."""
    generator = torch.Generator().manual_seed(seed)
    wanted = task.horizon * task.batch_size
    orders = [torch.randperm(count, generator=generator) for _ in range(-(-wanted // count))]
    return torch.cat(orders)[:wanted].view(task.horizon, task.batch_size)


def mean_loss(task: Task, network: nn.Module, examples: Examples) -> float:
    """Return the mean loss on examples, with the network as it is used."""
    return _mean(task.loss, network, examples)


def counted_loss(loss: float, first: float) -> float:
    """Return what a final loss counts as: at most `CAP` times the finite first one, as if not finite."""
    limit = CAP * first
    return min(loss, limit) if math.isfinite(loss) else limit


def _first_loss(task: Task, network: nn.Module, examples: Examples) -> float:
    loss = mean_loss(task, network, examples)
    if not 0 < loss < math.inf:
        raise TrainingError(
            f"{task.name}: the loss before the first step must be a positive number, is {loss}: "
            "change the task's loss or its first weights"
        )
    return loss


def _steps(
    task: Task, network: nn.Module, control: Control, examples: Examples, batches: Tensor, curves: Curves
) -> bool:
    """Train to the end, or until a loss or an LR is not finite; return whether all were."""
    network.train()
    parameters = list(network.parameters())
    inputs, targets, measure = examples.inputs, examples.targets, task.loss
    for step, rows in enumerate(batches[: max(len(batches) - control.spent, 0)]):
        loss = measure(network(inputs[rows]), targets[rows])
        value = loss.item()
        control.observe(step, value)
        for parameter in parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        lr = control.update()
        if not (math.isfinite(value) and math.isfinite(lr)):  # and no weight is any more
            return False
        curves.add(step, value, lr)
    return True


@torch.no_grad()
def _refresh(network: nn.Module, examples: Examples, batches: Tensor) -> None:
    network.train()
    for rows in batches[-REFRESH_BATCHES:]:
        network(examples.inputs[rows])


@torch.no_grad()
def _mean(measure: Callable[[Tensor, Tensor], Tensor], network: nn.Module, examples: Examples) -> float:
    network.eval()
    total = 0.0
    for begin in range(0, len(examples), CHUNK):
        chunk = examples[begin : begin + CHUNK]
        total += measure(network(chunk.inputs), chunk.targets).item() * len(chunk)
    return total / len(examples)


def _accuracy(task: Task, network: nn.Module, examples: Examples) -> float | None:
    return None if task.accuracy is None else _mean(task.accuracy, network, examples)
