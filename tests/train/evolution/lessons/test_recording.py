"""Trainings under plans, as a network would have seen them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mlrs_core.config import Optimizer
from mlrs_core.networks.cell import think
from mlrs_core.networks.tail.constants import FEATURES
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.lessons.recording import Plans, Recording, draw_plans
from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.evolution.trainings.conditions import Conditions
from mlrs_train.evolution.trainings.families.perceptrons import teacher_mlp
from mlrs_train.evolution.trainings.policies import NetworkRates, Views
from mlrs_train.evolution.trainings.problem import Problem
from mlrs_train.evolution.trainings.rollout import rollout

SPEC = EvolutionSettings().architecture()
H = SPEC.hidden_size
CONDITIONS = Conditions(optimizer=Optimizer.MOMENTUM, horizon=120, validate_every=20)
STARTS = np.array([0.01, 0.04])
STILL = Plans(np.full((2, 1), 2.0), np.zeros((2, 1)), np.zeros(2))


@pytest.fixture(scope="module")
def problem() -> Problem:
    """A small classifier."""
    return teacher_mlp(Draw(3))


def record(problem: Problem, plans: Plans) -> Recording:
    """Return two trainings under plans."""
    recording = Recording(SPEC, STARTS, np.array([1.2, math.nan]), plans)
    rollout(problem, CONDITIONS, recording, Draw(1), "final")
    return recording


def test_what_is_recorded_is_what_a_served_network_sees(problem: Problem) -> None:
    """A cell that is fed what was recorded ends as the cell of a network does that is trained under.

    Its head is 0, so it follows the schedule, as copies do whose plans are to stay.
    """
    phi = torch.cat([0.1 * Draw(4).normal(4 * H * (FEATURES + H)), torch.zeros(4 * H + 2 * H + 2)])
    views = Views.of(1, float(STARTS[0]), 1.2, signals=True, validations=True)
    served = NetworkRates(SPEC, phi[None], views)
    rollout(problem, CONDITIONS, served, Draw(1), "final")
    cell, gates = np.zeros(2 * H, np.float32), np.empty(4 * H)
    for features in record(problem, STILL).recorded()[0].features.double().numpy():
        think(cell, features, served._weights[0], SPEC.constants.forget_bias, gates)
    assert np.abs(cell).max() > 0.1
    np.testing.assert_allclose(served._states[0, : 2 * H], cell, atol=2e-3)


def test_a_plan_moves_the_rate_to_its_target(problem: Problem) -> None:
    """The correction stays 0 before its first stage, then goes to each target, no faster than its pace."""
    begins, targets = np.array([[0.3, 0.7]] * 2), np.array([[1.0, -1.0], [0.2, 0.2]])
    plans = Plans(begins, targets, np.array([0.1, 0.1]))
    first, second = record(problem, plans).recorded()
    moves = first.log_rates - math.log(STARTS[0])
    shares = first.steps / CONDITIONS.horizon
    assert (moves[shares < 0.3] == 0).all()
    assert float(moves[(shares > 0.6) & (shares < 0.7)][-1]) == pytest.approx(1.0, abs=0.1)
    assert float(moves[-1]) < 0.0
    assert moves.diff().abs().max() <= 0.1 + 1e-6
    assert float(second.log_rates[-1] - math.log(STARTS[1])) == pytest.approx(0.2, abs=0.01)


def test_everything_is_shown(problem: Problem) -> None:
    """Signals and validation losses are among what is recorded; a study masks them."""
    features = record(problem, STILL).recorded()[0].features
    assert features[-1, 34] == 1.0
    assert features[-1, 42] == 1.0


def test_plans_lead_to_the_best_and_away_from_it() -> None:
    """Many targets are near the best correction, many are not, and some copies never move."""
    plans = draw_plans(Draw(5), np.full(400, 2.0))
    assert plans.targets.mean() == pytest.approx(1.25, abs=0.3)
    assert (np.abs(plans.targets - 2.0) < 0.5).mean() > 0.25
    assert 0.05 < (plans.paces == 0).mean() < 0.3
    assert (np.diff(plans.begins, axis=1)[:, 1:] >= 0).all()
