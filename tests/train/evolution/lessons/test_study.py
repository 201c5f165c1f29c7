"""What a network learns from lessons."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mlrs_core.networks.cell import packed, think
from mlrs_core.networks.tail.constants import FEATURES
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.estimator import EvolutionSearch
from mlrs_train.evolution.lessons.lesson import FOUND, UNSEARCHED, Lesson, give_lesson
from mlrs_train.evolution.lessons.study import MAX_NORM, Study
from mlrs_train.evolution.method import initial_phi
from mlrs_train.evolution.sample import unpack
from mlrs_train.evolution.settings import EvolutionSettings

SETTINGS = EvolutionSettings(
    min_horizon=40, max_horizon=60, hidden_size=6, families=("quadratic", "teacher-mlp")
)


@pytest.fixture(scope="module")
def lessons() -> list[Lesson]:
    """Some lessons."""
    return [give_lesson(SETTINGS, number) for number in range(6)]


def test_a_lesson_is_a_function_of_its_number(lessons: list[Lesson]) -> None:
    """Given again it is the same to the bit; another number gives another one."""
    again = give_lesson(SETTINGS, 0)
    assert torch.equal(again.costs, lessons[0].costs)
    assert len(again.trainings) == FOUND + UNSEARCHED
    for one, other in zip(again.trainings, lessons[0].trainings, strict=True):
        assert torch.equal(one.features, other.features)
        assert torch.equal(one.log_rates, other.log_rates)
    assert not torch.equal(again.costs, lessons[1].costs)


def test_a_study_computes_what_a_served_network_does(lessons: list[Lesson]) -> None:
    """All looks at once give the head's first numbers that the kernel's cell gives, one after another."""
    spec, phi = SETTINGS.architecture(), 3 * initial_phi(SETTINGS)
    features = lessons[0].trainings[0].features.float()
    weights = packed({name: rows[0].numpy() for name, rows in unpack(spec, phi[None]).items()})
    cell, gates = np.zeros(2 * spec.hidden_size, np.float32), np.empty(4 * spec.hidden_size)
    served = [
        think(cell, row, weights, spec.constants.forget_bias, gates)[0] for row in features.double().numpy()
    ]
    pulls = Study(spec)._pulls(phi, features[None])[0]
    torch.testing.assert_close(pulls, torch.tensor(served).float(), rtol=1e-4, atol=1e-6)


def test_a_network_learns_to_move_towards_the_best_rate(lessons: list[Lesson]) -> None:
    """After some steps, what its moves cost has fallen, and gradients were never longer than agreed."""
    study, search = Study(SETTINGS.architecture()), EvolutionSearch(initial_phi(SETTINGS), averaging=0.98)
    study.add(lessons)
    assert study.count == len(lessons)
    costs = []
    for step in range(60):
        gradient, cost = study.gradient(search.phi, Draw(9, step))
        assert gradient.norm() <= MAX_NORM * (1 + 1e-5)
        search.step(gradient, 0.01)
        costs.append(cost)
    assert math.fsum(costs[-5:]) < 0.93 * math.fsum(costs[:5])


def test_a_network_is_shown_less_now_and_then(lessons: list[Lesson]) -> None:
    """The weights of every input have a gradient, those of signals and validation losses too."""
    study = Study(SETTINGS.architecture())
    study.add(lessons)
    gradient, _ = study.gradient(initial_phi(SETTINGS), Draw(2))
    rows = unpack(SETTINGS.architecture(), gradient[None])["cell.weight"][0]
    moved = rows[:, :FEATURES].abs().sum(0) > 0
    assert moved[[0, 34, 42]].all()


def test_what_is_hidden_plays_no_part() -> None:
    """Other signals change what moves cost only where they are shown, and so do other validation losses."""
    spec, phi = SETTINGS.architecture(), 3 * initial_phi(SETTINGS)
    study = Study(spec)
    study.add([give_lesson(SETTINGS, 0)])
    examples = study._examples[:8]

    def cost(*, signals: bool, validations: bool) -> float:
        shown = [torch.full((len(examples),), value) for value in (signals, validations)]
        return float(study._cost(phi, examples, *shown).detach())

    before = {(a, b): cost(signals=a, validations=b) for a in (False, True) for b in (False, True)}
    for example in examples:
        example.seen.features[:, 34:42] += 1.0
    changed = {
        views for views, value in before.items() if cost(signals=views[0], validations=views[1]) != value
    }
    assert changed == {(True, False), (True, True)}
    for example in examples:
        example.seen.features[:, 34:42] -= 1.0
        example.seen.features[:, 42:] += 1.0
    assert cost(signals=False, validations=False) == before[False, False]
    assert cost(signals=False, validations=True) != before[False, True]
