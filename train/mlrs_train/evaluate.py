"""How a model does on a fresh run of a task, beside schedules that nobody tuned.

    python -m mlrs_train.evaluate MODEL --tasks digits-cnn --epochs 20 --seeds 5

prints a Markdown table of test losses; `--base-lr` takes the rates of the schedules, to see what tuning
them would have given. The base learners are plain SGD, as in meta-training.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from mlrs_core.advise import advise
from mlrs_core.config import RunConfig
from mlrs_core.models.checkpoint import read_model
from mlrs_core.models.model import Model
from mlrs_core.policy import no_networks, table_of
from mlrs_train.hypergradient.gradient import sgd_direction, sgd_step, value_and_grad
from mlrs_train.shapes import cosine_share
from mlrs_train.tasks import BaseTask, Batch, Params, load_tasks

Schedule = Callable[[int, float], float]
"""The learning rate of a step with this number and training loss; asked once per step, in order."""
WEIGHT_DECAY = 5e-4
"""SGD's weight decay, as in meta-training."""
FIRST_SEED = 1000
"""Far from the seeds that models are trained with."""


def advised(model: Model, horizon: int, num_classes: int) -> Schedule:
    """Return the model's advice for one run, as the daemon gives it."""
    policy = model.policy()
    table = table_of([RunConfig(horizon=horizon, num_classes=num_classes)])
    state, network = policy.init_state(1), no_networks(policy, 1)
    row, last = np.zeros(1, np.int64), np.full(1, np.nan)

    def schedule(step: int, loss: float) -> float:
        steps, losses = np.array([step]), np.array([loss])
        return float(advise(policy, state, network, table, row, steps, losses, last)[0])

    return schedule


def constant(base_lr: float) -> Schedule:
    """Return the base LR at every step."""
    return lambda _step, _loss: base_lr


def cosine(base_lr: float, horizon: int) -> Schedule:
    """Return half a cosine, from the base LR to 0."""
    return lambda step, _loss: base_lr * cosine_share(step, horizon)


def final_loss(task: BaseTask, schedule: Schedule, *, epochs: int, seed: int) -> float:
    """Return the test loss after a fresh run under a schedule, nats."""
    generator = torch.Generator().manual_seed(seed)
    params = task.init(generator)
    size, steps = task.batch_size, task.steps_per_epoch
    for epoch in range(epochs):
        order = torch.randperm(len(task.train), generator=generator)
        for index in range(steps):
            batch = task.train.take(order[index * size : (index + 1) * size])
            loss, gradients = value_and_grad(partial(_loss_on, task, batch), params)
            lr = schedule(epoch * steps + index, loss.item())
            params = sgd_step(params, sgd_direction(params, gradients, WEIGHT_DECAY), lr)
    with torch.no_grad():
        return task.loss(params, (task.test.inputs, task.test.targets)).item()


def _loss_on(task: BaseTask, batch: Batch, params: Params) -> Tensor:
    return task.loss(params, batch)


@click.command(context_settings={"show_default": True})
@click.argument("model_file", metavar="MODEL", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--tasks", default="digits-cnn", metavar="NAMES", help="What to train on.")
@click.option("--epochs", default=20, help="Passes over the data.")
@click.option("--seeds", default=5, help="Runs per schedule, paired.")
@click.option(
    "--base-lr", "base_lrs", multiple=True, default=(0.1,), help="Of the other schedules; give several."
)
def main(model_file: Path, tasks: str, epochs: int, seeds: int, base_lrs: tuple[float, ...]) -> None:
    """Print the median, lowest and highest test loss of fresh runs under MODEL and other schedules."""
    torch.set_num_threads(1)
    model, _ = read_model(model_file)
    click.echo("| task | schedule | median | lowest | highest |\n|---|---|---|---|---|")
    for name, task in load_tasks(tasks.split(",")).items():
        horizon = epochs * task.steps_per_epoch
        schedules: dict[str, Callable[[], Schedule]] = {
            model_file.stem: partial(advised, model, horizon, task.num_classes),
            **{f"constant {lr}": partial(constant, lr) for lr in base_lrs},
            **{f"cosine {lr}": partial(cosine, lr, horizon) for lr in base_lrs},
        }
        for label, schedule in schedules.items():
            losses = [
                final_loss(task, schedule(), epochs=epochs, seed=FIRST_SEED + run) for run in range(seeds)
            ]
            figures = " | ".join(f"{f(losses):.4f}" for f in (statistics.median, min, max))
            click.echo(f"| {name} | {label} | {figures} |")


if __name__ == "__main__":
    main()
