"""One batched training: many copies of a base model, each under its own policy."""

from __future__ import annotations

import torch
from torch import Tensor

from mlrs_core.policy import COLUMNS
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.objective import Outcomes, capped, evaluation_steps
from mlrs_train.evolution.settings import Objective
from mlrs_train.evolution.trainings.conditions import Conditions
from mlrs_train.evolution.trainings.optimizers import UpdateRule, clip
from mlrs_train.evolution.trainings.policies import VALIDATION, RatePolicy, Shown
from mlrs_train.evolution.trainings.problem import Problem
from mlrs_train.evolution.trainings.signals import SignalMeter


@torch.no_grad()
def rollout(
    problem: Problem, conditions: Conditions, policy: RatePolicy, draw: Draw, objective: Objective
) -> Outcomes:
    """Train as many copies as the policy advises, to the horizon.

    All copies share initial weights and batches, which come from `draw`. A copy that diverges
    stays what it is, and touches no other. What is validated for the policy is another half of the held-out
    examples than what the result is judged on.
    """
    rows = problem.copies(policy.size)
    updater = UpdateRule(
        conditions.optimizer, rows, momentum=conditions.momentum, weight_decay=conditions.weight_decay
    )
    initial, taken = problem.evaluate(rows, problem.judged), []
    points = evaluation_steps(objective, conditions.horizon)
    signalled, validated = policy.sees
    meter = SignalMeter(problem) if signalled else None
    signals = None
    policy.begin(conditions)
    for step in range(conditions.horizon):
        batch = problem.train.take(draw.integers(len(problem.train), problem.batch_size))
        losses, gradients = problem.value_and_grad(rows, batch)
        if conditions.clip is not None:
            gradients = clip(gradients, conditions.clip)
        if validated and step and step % conditions.validate_every == 0:
            signals = _with_validation(signals, conditions.report(problem.evaluate(rows, problem.shown)))
        rates = policy.advise(step, Shown(conditions.report(losses), signals))
        updates = updater.apply(rows, gradients, rates)
        signals = None if meter is None else meter.take(step, rows, gradients, updates)
        if step + 1 in points:
            taken.append(problem.evaluate(rows, problem.judged))
    return Outcomes(
        judged=capped(torch.stack(taken), initial).mean(0),
        trained=capped(problem.training_losses(rows), problem.training_losses(problem.copies(policy.size))),
    )


def _with_validation(signals: Tensor | None, losses: Tensor) -> Tensor:
    """Return what is shown, (n, len(COLUMNS)), with validation losses, (n,)."""
    if signals is None:
        signals = torch.full((len(losses), len(COLUMNS)), torch.nan, dtype=torch.float64)
    signals[:, VALIDATION] = losses
    return signals
