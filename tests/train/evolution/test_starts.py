"""Where trainings start: searches made side by side, and weights that were trained before."""

from __future__ import annotations

import math

import pytest
import torch

from mlrs_core.config import Optimizer
from mlrs_core.search.race import SearchSetup, Trial, TrialResult, what_next
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.groups import draw_views
from mlrs_train.evolution.trainings.conditions import Conditions
from mlrs_train.evolution.trainings.families.perceptrons import teacher_mlp
from mlrs_train.evolution.trainings.optimizers import UpdateRule
from mlrs_train.evolution.trainings.problem import Problem
from mlrs_train.evolution.trainings.starts import COMPARED_ON, pretrained, search


@pytest.fixture(scope="module")
def problem() -> Problem:
    """A small classifier."""
    return teacher_mlp(Draw(3))


def searched_alone(problem: Problem, conditions: Conditions, draw: Draw) -> float:
    """Return what a search finds that makes one trial after the other, as a client does."""
    setup = SearchSetup(
        horizon=conditions.horizon, optimizer=conditions.optimizer, momentum=conditions.momentum
    )
    take = problem.train.take
    drawn = [
        take(draw.integers(len(problem.train), problem.batch_size)) for _ in range(COMPARED_ON + setup.steps)
    ]
    results: list[TrialResult] = []
    while isinstance(trial := what_next(setup, results), Trial):
        rows = problem.copies(1)
        updater = UpdateRule(
            conditions.optimizer, rows, momentum=conditions.momentum, weight_decay=conditions.weight_decay
        )
        for step in range(trial.steps):
            _, gradients = problem.value_and_grad(rows, drawn[COMPARED_ON + step])
            rate = trial.learning_rate * (1 - step / trial.steps)
            updater.apply(rows, gradients, torch.tensor([rate]))
        params = problem.unpack(rows)
        losses = [float(problem.losses(params, batch)[0]) for batch in drawn[:COMPARED_ON]]
        results.append(
            TrialResult(
                learning_rate=trial.learning_rate, steps=trial.steps, loss=math.fsum(losses) / len(losses)
            )
        )
    return trial.learning_rate


@pytest.mark.parametrize("rule", [Optimizer.SGD, Optimizer.MOMENTUM, Optimizer.ADAMW])
def test_a_search_side_by_side_finds_what_one_by_one_does(problem: Problem, rule: Optimizer) -> None:
    """All trials at once, looked up as they are asked for, lead to the learning rate of a client's search."""
    conditions = Conditions(optimizer=rule, horizon=300)
    found = search(problem, conditions, Draw(5))
    assert found.learning_rate == pytest.approx(searched_alone(problem, conditions, Draw(5)), rel=1e-3)


def test_pretrained_weights_are_better(problem: Problem) -> None:
    """A problem whose weights were trained before starts at a lower loss, on the same data."""
    later = pretrained(problem, Conditions(optimizer=Optimizer.ADAMW, horizon=300), Draw(2))
    assert later.evaluate(later.copies(1)) < problem.evaluate(problem.copies(1))
    assert later.train is problem.train


def test_views_vary(problem: Problem) -> None:
    """Most groups start near what a search found, some at the default rate; what they are shown differs."""
    conditions = Conditions(optimizer=Optimizer.ADAM, horizon=300)
    found = search(problem, conditions, Draw(5))
    views = [draw_views(Draw(1, number), 1, conditions, found) for number in range(400)]
    searched = [float(view.starts) / found.learning_rate for view in views if not math.isnan(view.octaves)]
    assert 250 < len(searched) < 350
    assert sum(0.25 < ratio < 4.0 for ratio in searched) > 0.9 * len(searched)
    assert min(searched) < 0.5
    assert max(searched) > 2.0
    shown = {(bool(view.signals), bool(view.validations)) for view in views}
    assert len(shown) == 4
    assert any(math.isnan(view.starts) for view in views)
