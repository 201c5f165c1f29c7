"""How phi learns from a population: pairs, ranks, and a search that gets somewhere."""

from __future__ import annotations

import pytest
import torch

from mlrs_train.evolution import sample
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.estimator import EvolutionSearch, antithetic, centered_ranks, gradient
from mlrs_train.evolution.method import initial_phi
from mlrs_train.evolution.objective import Outcomes
from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.evolution.trainings.policies import SideBySide


def test_pairs_differ_in_sign_alone() -> None:
    """The second half of the perturbations is the first with the other sign."""
    rows = antithetic(Draw(1), 5, 7)
    assert rows.shape == (10, 7)
    assert torch.equal(rows[:5], -rows[5:])


def test_pairs_share_task_weights_and_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """All members of a group see one problem, one set of conditions, one stream of batches and one view."""
    settings = EvolutionSettings(
        population=4, min_horizon=4, max_horizon=4, families=("quadratic",), sigma=1e-30
    )
    settings_of: list[object] = []
    rollout = sample.rollout

    def spying(problem: object, conditions: object, policy: SideBySide, *rest: object) -> Outcomes:
        settings_of.extend([problem, conditions])
        assert policy.size == 5
        return rollout(problem, conditions, policy, *rest)

    monkeypatch.setattr(sample, "rollout", spying)
    # With perturbations that vanish, members that share everything else reach the same, bit for bit.
    result = sample.draw_sample(settings, initial_phi(settings), 0, 0)
    assert len(settings_of) == 2
    first, second = result.fitness.split(2)
    assert (first == first[0]).all()
    assert (second == second[0]).all()


def test_ranks_are_centred_and_ties_are_fair() -> None:
    """The best has -1/2, the worst 1/2; equal values share the middle, whatever their order."""
    assert centered_ranks(torch.tensor([3.0, 1.0, 2.0])).tolist() == [0.5, -0.5, 0.0]
    assert centered_ranks(torch.full((4,), 50.0)).tolist() == [0.0] * 4
    tied = centered_ranks(torch.tensor([9.0, 1.0, 9.0]))
    assert tied.tolist() == [0.25, -0.5, 0.25]


def test_direction_sees_ranks_only() -> None:
    """Any increasing map of the fitness gives the same direction: outliers do not dominate."""
    rows, fitness = antithetic(Draw(2), 8, 3), Draw(3).rand(16)
    plain, stretched = gradient(fitness, rows), gradient(fitness.exp() ** 30, rows)
    torch.testing.assert_close(plain / plain.norm(), stretched / stretched.norm())


def test_length_says_what_was_at_stake() -> None:
    """Where all members end alike the estimate is short; units of the loss do not matter."""
    rows, fitness = antithetic(Draw(2), 8, 3), Draw(3).rand(16) + 0.5
    wide, narrow = gradient(fitness, rows), gradient(1 + 1e-4 * fitness, rows)
    assert narrow.norm() < 0.02 * wide.norm()
    torch.testing.assert_close(gradient(1e-3 * fitness, rows), wide)


def test_search_finds_a_minimum() -> None:
    """On a bowl, phi comes near the minimum, and its average nearer still."""
    goal = Draw(4).normal(6)
    search = EvolutionSearch(torch.zeros(6), averaging=0.9)
    for update in range(150):
        rows = antithetic(Draw(5, update), 10, 6)
        reached = (search.phi + 0.05 * rows - goal).square().sum(1)
        search.step(gradient(reached, rows), 0.05 * (1 - update / 150) + 0.002)
    assert float((search.average - goal).norm()) < 0.1
