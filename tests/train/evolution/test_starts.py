"""Where trainings start: around the best learning rate for the training loss, or from trained weights."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from mlrs_core.config import Optimizer
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.groups import draw_views
from mlrs_train.evolution.sample import draw_task
from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.evolution.trainings.conditions import Conditions
from mlrs_train.evolution.trainings.families import FAMILIES
from mlrs_train.evolution.trainings.families.perceptrons import teacher_mlp
from mlrs_train.evolution.trainings.problem import Problem
from mlrs_train.evolution.trainings.starts import RATES, _trained, best_start, pretrained


@pytest.fixture(scope="module")
def problem() -> Problem:
    """A small classifier."""
    return teacher_mlp(Draw(3))


@pytest.mark.parametrize("rule", [Optimizer.SGD, Optimizer.MOMENTUM, Optimizer.ADAMW])
def test_the_best_start_ends_at_a_lower_training_loss(problem: Problem, rule: Optimizer) -> None:
    """On what is trained on, the schedule from the best start beats those from four times and a quarter."""
    conditions = Conditions(optimizer=rule, horizon=150)
    best = best_start(problem, conditions, Draw(5))
    rows = _trained(problem, conditions, best * torch.tensor([0.25, 1.0, 4.0]), Draw(5))
    examples = problem.train.inputs, problem.train.targets
    lower, middle, higher = problem.losses(problem.unpack(rows), examples).tolist()
    least, most = conditions.default_lr * min(RATES), conditions.default_lr * max(RATES)
    assert least < best < most
    assert middle < min(lower, higher)


def test_a_start_is_found_where_most_rates_diverge(problem: Problem) -> None:
    """Trainings that end in NaN count as bad ones."""
    hot = dataclasses.replace(problem, losses=lambda params, batch: 1e4 * problem.losses(params, batch))
    best = best_start(hot, Conditions(optimizer=Optimizer.SGD, horizon=40), Draw(1))
    assert best == pytest.approx(0.1 * min(RATES), rel=0.8)


def test_pretrained_weights_are_better(problem: Problem) -> None:
    """A problem whose weights were trained before starts at a lower loss, on the same data."""
    later = pretrained(problem, Conditions(optimizer=Optimizer.ADAMW, horizon=300), Draw(2))
    examples = problem.train.inputs, problem.train.targets
    before, after = (one.losses(one.unpack(one.copies(1)), examples) for one in (problem, later))
    assert after < before
    assert later.train is problem.train


def test_views_vary() -> None:
    """Most groups start near the best rate, some at the default one; what they are shown differs."""
    conditions = Conditions(optimizer=Optimizer.ADAM, horizon=300)
    views = [draw_views(Draw(1, number), 1, conditions, 0.03) for number in range(400)]
    octaves = [math.log2(float(view.starts) / 0.03) for view in views if not math.isnan(view.octaves)]
    assert 250 < len(octaves) < 350
    assert -1.3 < sum(octaves) / len(octaves) < -0.4
    assert sum(octave < -2.5 for octave in octaves) > 10
    assert sum(octave > 2.5 for octave in octaves) < 10
    assert len({(bool(view.signals), bool(view.validations)) for view in views}) == 4
    assert any(float(view.starts) == conditions.default_lr for view in views)


def test_tasks_vary_in_how_they_start() -> None:
    """Some tasks start with a last layer of zeros, some from trained biases; scales may differ in a task."""
    settings = EvolutionSettings(min_horizon=4, max_horizon=6)
    tasks = [draw_task(Draw(3, number), FAMILIES["teacher-mlp"], settings)[0] for number in range(120)]
    zeros = [
        not [value for name, value in task.params.items() if name.endswith("weight")][-1].any()
        for task in tasks
    ]
    trained = [
        any(value.any() for name, value in task.params.items() if name.endswith("bias")) for task in tasks
    ]
    spread = [len(set(task.scales.values())) > 1 for task in tasks]
    assert 2 < sum(zeros) < 30
    assert 2 < sum(trained) < 30
    assert 40 < sum(spread) < 110
