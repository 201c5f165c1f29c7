"""The warm start: what teachers measure, and what pupils learn from it."""

from __future__ import annotations

import math

import pytest
import torch

from mlrs_core.config import Optimizer
from mlrs_core.errors import InvalidFieldError
from mlrs_train.evolution.cloning import PUPILS, YARDSTICK, Pupils, clone_sample, limited
from mlrs_train.evolution.conditions import Conditions
from mlrs_train.evolution.estimator import Search
from mlrs_train.evolution.method import Evolution, initial_phi
from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.evolution.teachers import COUNT, LOG_RATES, SHAPES, WORST, RegretCurve, Teachers, cosine, wsd

SETTINGS = EvolutionSettings(
    updates=4, min_horizon=60, max_horizon=60, hidden_size=6, families=("teacher-mlp",), tasks_per_update=1
)
CONDITIONS = Conditions(optimizer=Optimizer.ADAM, horizon=200, initial_lr=1e-3)


def reached_with_minimum_at(log_rate: float) -> torch.Tensor:
    """Return what teachers reach on a task whose log-loss is a parabola around a log-rate; wsd is worse."""
    parabola = 0.3 * torch.exp(0.1 * (LOG_RATES - log_rate) ** 2)
    return torch.cat([parabola, 1.1 * parabola])


def test_teachers_follow_their_shapes() -> None:
    """Each teacher warms up to its own rate and ends near 0; the yardstick is the usual cosine."""
    teachers = Teachers()
    teachers.begin(CONDITIONS)
    rates = torch.stack([teachers.advise(step, torch.zeros(Teachers.size)) for step in range(200)])
    peaks = torch.cat([LOG_RATES.exp()] * len(SHAPES)).float() * 1e-3
    torch.testing.assert_close(rates[10:].max(0).values, peaks, rtol=0.02, atol=0)
    assert (rates[0] < 0.05 * peaks).all()
    assert (rates[-1] < 0.1 * peaks).all()
    assert float(peaks[YARDSTICK]) == pytest.approx(1e-3)
    assert SHAPES[YARDSTICK // COUNT] is cosine


def test_shapes_end_and_stay_positive() -> None:
    """A shape is in (0, 1] over the whole horizon, and wsd is flat until it cools down."""
    for shape in SHAPES:
        values = [shape(step / 1000) for step in range(1001)]
        assert 0 < min(values) <= max(values) <= 1
        assert values[-1] <= 0.011
    assert wsd(0.1) == wsd(0.7) == 1


def test_regret_is_least_at_the_best_rate() -> None:
    """The curve takes the better shape, is 0 at its best rate, grows either way, and is bounded."""
    best = float(LOG_RATES[9])
    curve = RegretCurve.of(reached_with_minimum_at(best))
    assert SHAPES[curve.shape] is cosine
    assert float(curve.at(torch.tensor([best], dtype=torch.float64))) == pytest.approx(0, abs=1e-9)
    around = curve.at(torch.linspace(best - 3, best + 3, 41, dtype=torch.float64))
    assert (around[:20].diff() < 0).all()
    assert (around[21:].diff() > 0).all()
    assert float(curve.regrets.max()) <= WORST


@pytest.mark.parametrize("off", [-30.0, -2.0, 2.0, 30.0])
def test_regret_leads_back_from_anywhere(off: float) -> None:
    """Also where all teachers were lost, and beyond the rates they tried, the slope points to the best."""
    best = float(LOG_RATES[6])
    curve = RegretCurve.of(reached_with_minimum_at(best))
    place = torch.tensor([best + off], dtype=torch.float64, requires_grad=True)
    curve.at(place).sum().backward()
    assert place.grad is not None
    assert math.copysign(1, float(place.grad)) == math.copysign(1, off)


def regret_of(phi: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
    """Return the regret of pupils under phi that are told these losses, (steps, n)."""
    pupils = Pupils(SETTINGS.architecture(), phi, torch.tensor([1.0, 0.1, 5.0]))
    pupils.begin(Conditions(optimizer=Optimizer.ADAM, horizon=len(losses), initial_lr=1e-3))
    for step, row in enumerate(losses):
        pupils.advise(step, row)
    return pupils.regret(RegretCurve.of(reached_with_minimum_at(2.0)))


def test_gradient_is_that_of_the_regret() -> None:
    """Through all ticks of a training, autograd agrees with finite differences in double precision."""
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(40, 3, generator=generator) + 0.5
    phi = initial_phi(SETTINGS).double() * 5
    direction = torch.randn(len(phi), generator=generator, dtype=torch.float64)
    leaf = phi.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(regret_of(leaf, losses), leaf)
    step = 1e-4  # states are rounded to single precision, so smaller ones drown
    ahead, behind = (float(regret_of(phi + sign * step * direction, losses)) for sign in (1, -1))
    slope = float(gradient @ direction)
    assert abs(slope) > 1e-3
    assert (ahead - behind) / (2 * step) == pytest.approx(slope, rel=2e-2)


def test_sample_is_pure_and_has_pupils_from_the_usual_rate() -> None:
    """A sample depends on settings, phi and its two numbers alone."""
    phi = initial_phi(SETTINGS)
    first, again, other = (clone_sample(SETTINGS, phi, 0, index) for index in (0, 0, 1))
    assert torch.equal(first.estimate, again.estimate)
    assert torch.equal(first.fitness, again.fitness)
    assert not torch.equal(first.estimate, other.estimate)
    assert len(first.fitness) == PUPILS // 2
    assert 0 < first.regret < 2
    assert float(first.estimate.norm()) <= 0.51


def test_pupils_learn() -> None:
    """On one task, met again and again, thirty steps along the gradient halve the regret."""
    search = Search(initial_phi(SETTINGS), averaging=0.9)
    regrets = []
    for _ in range(30):
        sample = clone_sample(SETTINGS, search.phi, 0, 3)
        regrets.append(sample.regret)
        search.step(sample.estimate, 0.02)
    assert regrets[-1] < 0.5 * regrets[0]


def test_gradient_that_is_not_finite_says_nothing() -> None:
    """One infinite or NaN entry does not reach phi; a long gradient is cut, a short one is as it is."""
    assert torch.equal(limited(torch.tensor([1.0, math.inf])), torch.zeros(2))
    assert torch.equal(limited(torch.tensor([1.0, math.nan])), torch.zeros(2))
    assert float(limited(torch.tensor([30.0, 40.0])).norm()) == pytest.approx(0.5)
    assert torch.equal(limited(torch.tensor([0.1, 0.0])), torch.tensor([0.1, 0.0]))


def test_evolution_starts_afresh_from_the_clone() -> None:
    """When cloning is over, phi and its average stay, and Adam's moments are dropped."""
    settings = EvolutionSettings(**{**SETTINGS.to_json(), "population": 4, "cloning_updates": 2})
    training = Evolution(settings)
    for _ in range(2):
        training.advance()
    assert training.search.age == training.search.steps == 2
    training.advance()
    assert (training.search.age, training.search.steps) == (1, 3)


def test_rates_of_both_stages_fall_from_their_own_start() -> None:
    """Adam's rate falls from `cloning_lr` while cloning, then from `meta_lr` to `final_meta_lr`."""
    settings = EvolutionSettings(
        updates=10, cloning_updates=4, cloning_lr=0.1, meta_lr=0.5, final_meta_lr=0.05
    )
    training, rates = Evolution(settings), []
    for update in range(10):
        training.search.steps = update
        if update == 4:
            training._share_cloned = training._share
        rates.append(training._meta_lr())
    assert rates[0] == pytest.approx(0.1)
    assert rates[4] == pytest.approx(0.5)
    assert rates[:4] == sorted(rates[:4], reverse=True)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[3] < 0.05
    assert 0.05 < rates[9] < 0.15


def test_more_cloning_than_updates_is_refused() -> None:
    """The error names the setting and the bound."""
    with pytest.raises(InvalidFieldError, match="cloning_updates: cannot be more than updates, 3"):
        EvolutionSettings(updates=3, cloning_updates=4)
