"""Where trainings start: at what a search finds, as the daemon's does, or at another learning rate."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from mlrs_core.search.race import SPACING, Found, SearchSetup, Trial, TrialResult, what_next
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.trainings.conditions import Conditions
from mlrs_train.evolution.trainings.optimizers import UpdateRule, clip
from mlrs_train.evolution.trainings.policies import ScheduleRates, Shown
from mlrs_train.evolution.trainings.problem import Problem
from mlrs_train.tasks import Batch

COMPARED_ON = 4
"""Batches that trials are compared on."""
REACH = 10
"""Positions of the search's grid to either side of its first learning rate that are tried at once."""


@torch.no_grad()
def search(problem: Problem, conditions: Conditions, draw: Draw) -> Found:
    """Return what a search finds: all trials that it could ask for are made side by side."""
    setup = SearchSetup(
        horizon=conditions.horizon, optimizer=conditions.optimizer, momentum=conditions.momentum
    )
    first = what_next(setup, [])
    assert isinstance(first, Trial)  # noqa: S101  # it measures the loss at the start
    positions = torch.arange(-REACH, REACH + 1)
    rates = first.learning_rate * 10.0 ** (SPACING * positions)
    compared = [_batch(problem, draw) for _ in range(COMPARED_ON)]
    rows = problem.copies(len(rates))
    at_start = _mean_loss(problem, rows[:1], compared)
    updater = UpdateRule(
        conditions.optimizer, rows, momentum=conditions.momentum, weight_decay=conditions.weight_decay
    )
    for step in range(setup.steps):
        _, gradients = problem.value_and_grad(rows, _batch(problem, draw))
        if conditions.clip is not None:
            gradients = clip(gradients, conditions.clip)
        updater.apply(rows, gradients, rates * (1 - step / setup.steps))
    losses = _mean_loss(problem, rows, compared)
    results = [TrialResult(learning_rate=first.learning_rate, steps=0, loss=float(at_start[0]))]
    while isinstance(asked := what_next(setup, results), Trial):
        position = round(math.log10(asked.learning_rate / first.learning_rate) / SPACING) + REACH
        loss = float(losses[position]) if 0 <= position < len(losses) else math.inf
        results.append(TrialResult(learning_rate=asked.learning_rate, steps=asked.steps, loss=loss))
    return asked


def pretrained(problem: Problem, conditions: Conditions, draw: Draw) -> Problem:
    """Return a problem whose first weights were trained before, for a part of the horizon."""
    found = search(problem, conditions, draw)
    steps = max(1, round(draw.uniform(0.1, 0.5) * conditions.horizon))
    before = dataclasses.replace(conditions, horizon=steps)
    schedule = ScheduleRates(["wsd"], torch.tensor([found.learning_rate]))
    schedule.begin(before)
    rows = problem.copies(1)
    updater = UpdateRule(before.optimizer, rows, momentum=before.momentum, weight_decay=before.weight_decay)
    for step in range(steps):
        losses, gradients = problem.value_and_grad(rows, _batch(problem, draw))
        updater.apply(rows, gradients, schedule.advise(step, Shown(losses)))
    if not rows.isfinite().all():
        return problem
    return dataclasses.replace(
        problem, params={name: tensor[0].clone() for name, tensor in problem.unpack(rows).items()}
    )


def _batch(problem: Problem, draw: Draw) -> Batch:
    return problem.train.take(draw.integers(len(problem.train), problem.batch_size))


def _mean_loss(problem: Problem, rows: Tensor, batches: list[Batch]) -> Tensor:
    """Return the mean loss of copies on some batches, (n,)."""
    params = problem.unpack(rows)
    return torch.stack([problem.losses(params, batch) for batch in batches]).mean(0)
