"""Where trainings start: around the learning rate that is best for the training loss, as after a search."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.objective import Outcomes, capped
from mlrs_train.evolution.trainings.conditions import Conditions
from mlrs_train.evolution.trainings.optimizers import UpdateRule, clip
from mlrs_train.evolution.trainings.policies import ScheduleRates, Shown
from mlrs_train.evolution.trainings.problem import Problem
from mlrs_train.tasks import Batch

RATES = tuple(10 ** (-1.5 + 0.5 * index) for index in range(10))
"""The learning rates that are tried, in units of the update rule's default one."""


def best_start(problem: Problem, conditions: Conditions, draw: Draw) -> float:
    """Return the learning rate from which the schedule ends at the lowest training loss.

    Not the validation loss: no search sees that.
    """
    return conditions.default_lr * best_of(tried(problem, conditions, draw).trained)


def tried(problem: Problem, conditions: Conditions, draw: Draw) -> Outcomes:
    """Return how the schedule ends from each of the rates, (rates,). The trainings are made side by side."""
    rows = _trained(problem, conditions, conditions.default_lr * torch.tensor(RATES), draw)
    first = problem.copies(len(RATES))
    return Outcomes(
        judged=capped(problem.evaluate(rows, problem.judged), problem.evaluate(first, problem.judged)),
        trained=capped(problem.training_losses(rows), problem.training_losses(first)),
    )


def best_of(losses: Tensor) -> float:
    """Return the best learning rate, in units of the default one, from the losses after each, (rates,).

    A parabola through the best three log-losses gives the minimum between them.
    """
    levels = torch.log(losses.clamp(min=1e-7))
    best, offset = int(levels.argmin()), 0.0
    if 0 < best < len(RATES) - 1:
        low, middle, high = levels[best - 1 : best + 2].tolist()
        if (bend := low - 2 * middle + high) > 0:
            offset = max(-0.5, min(0.5, 0.5 * (low - high) / bend))
    spacing: float = (RATES[1] / RATES[0]) ** offset
    return RATES[best] * spacing


def pretrained(problem: Problem, conditions: Conditions, draw: Draw) -> Problem:
    """Return a problem whose first weights were trained before, for a part of the horizon."""
    steps = max(1, round(draw.uniform(0.1, 0.5) * conditions.horizon))
    before = dataclasses.replace(conditions, horizon=steps)
    rows = _trained(problem, before, torch.tensor([best_start(problem, before, draw)]), draw)
    if not rows.isfinite().all():
        return problem
    return dataclasses.replace(
        problem, params={name: tensor[0].clone() for name, tensor in problem.unpack(rows).items()}
    )


@torch.no_grad()
def _trained(problem: Problem, conditions: Conditions, rates: Tensor, draw: Draw) -> Tensor:
    """Return the weights of copies, (n, weights), after the schedule from some learning rates, (n,)."""
    schedule = ScheduleRates(["wsd"] * len(rates), rates)
    schedule.begin(conditions)
    rows = problem.copies(len(rates))
    updater = UpdateRule(
        conditions.optimizer, rows, momentum=conditions.momentum, weight_decay=conditions.weight_decay
    )
    for step in range(conditions.horizon):
        losses, gradients = problem.value_and_grad(rows, _batch(problem, draw))
        if conditions.clip is not None:
            gradients = clip(gradients, conditions.clip)
        updater.apply(rows, gradients, schedule.advise(step, Shown(losses)))
    return rows


def _batch(problem: Problem, draw: Draw) -> Batch:
    return problem.train.take(draw.integers(len(problem.train), problem.batch_size))
