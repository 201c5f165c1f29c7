"""One batched training: many copies of a base model, each under its own policy."""

from __future__ import annotations

import torch
from torch import Tensor

from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.objective import capped, evaluation_steps
from mlrs_train.evolution.settings import Objective
from mlrs_train.evolution.trainings.conditions import Conditions
from mlrs_train.evolution.trainings.optimizers import UpdateRule, clip
from mlrs_train.evolution.trainings.policies import RatePolicy
from mlrs_train.evolution.trainings.problem import Problem


@torch.no_grad()
def rollout(
    problem: Problem, conditions: Conditions, policy: RatePolicy, draw: Draw, objective: Objective
) -> Tensor:
    """Train as many copies as the policy advises, to the horizon.

    All copies share initial weights and batches, which come from `draw`. A copy that diverges
    stays what it is, and touches no other.

    Returns:
        What the objective makes of each, (n,), finite; less is better.
    """
    rows = problem.copies(policy.size)
    updates = UpdateRule(
        conditions.optimizer, rows, momentum=conditions.momentum, weight_decay=conditions.weight_decay
    )
    initial, taken = problem.evaluate(rows), []
    points = evaluation_steps(objective, conditions.horizon)
    policy.begin(conditions)
    for step in range(conditions.horizon):
        batch = problem.train.take(draw.integers(len(problem.train), problem.batch_size))
        losses, gradients = problem.value_and_grad(rows, batch)
        if conditions.clip is not None:
            gradients = clip(gradients, conditions.clip)
        rates = policy.advise(step, conditions.report(losses))
        updates.apply(rows, gradients, rates)
        if step + 1 in points:
            taken.append(problem.evaluate(rows))
    return capped(torch.stack(taken), initial).mean(0)
