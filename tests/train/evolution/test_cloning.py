"""The warm start: what teachers measure, what is noted of runs, and what a network learns from it."""

from __future__ import annotations

import math

import pytest
import torch

from mlrs_core.config import Optimizer
from mlrs_core.errors import InvalidFieldError
from mlrs_core.networks.drift.constants import FEATURES, SCALES
from mlrs_core.networks.drift.reference import DriftReference, DriftRuns, Extras
from mlrs_core.networks.drift.spec import DriftSpec
from mlrs_train.evolution.cloning.lessons import PUPILS, WATCHED, Notes, ObservedRun, collect
from mlrs_train.evolution.cloning.study import MAX_NORM, Study, limited
from mlrs_train.evolution.cloning.teachers import (
    COUNT,
    LOG_RATES,
    SHAPES,
    WARMUP,
    WORST,
    YARDSTICK,
    RegretCurve,
    Teachers,
    cosine,
    log_shares,
    regret,
    wsd,
)
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.estimator import EvolutionSearch
from mlrs_train.evolution.method import Evolution, initial_phi
from mlrs_train.evolution.sample import one_network, unpack
from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.evolution.trainings.conditions import Conditions
from mlrs_train.evolution.trainings.policies import NetworkRates

SETTINGS = EvolutionSettings(
    updates=4,
    cloning_updates=0,
    min_horizon=60,
    max_horizon=60,
    hidden_size=6,
    families=("teacher-mlp",),
    tasks_per_update=1,
)
CONDITIONS = Conditions(optimizer=Optimizer.ADAM, horizon=200, initial_lr=1e-3)


def curve_with_minimum_at(log_rate: float) -> RegretCurve:
    """Return the curve of a task whose log-loss is a parabola around a log-rate; wsd is a third worse."""
    parabola = 0.3 * torch.exp(0.1 * (LOG_RATES - log_rate) ** 2)
    return RegretCurve.of(torch.cat([parabola, 1.33 * parabola]), initial=1.0)


def regret_of(log_rates: torch.Tensor, curve: RegretCurve) -> torch.Tensor:
    """Return the regrets of some base rates, (n,), at a step where all shapes are at their base."""
    return regret(log_rates[None], torch.zeros(1, len(SHAPES), len(log_rates)), [curve])[0]


def test_teachers_follow_their_shapes() -> None:
    """Each teacher warms up to its own rate and ends near 0; the yardstick is the ordinary cosine."""
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


def test_shares_leave_the_warmup_out() -> None:
    """A network is not asked to warm up as teachers do; later it is compared with their shapes."""
    shares = log_shares(torch.tensor([0.0, WARMUP, 0.5]))
    torch.testing.assert_close(shares[:, 0], shares[:, 1])
    torch.testing.assert_close(shares[:, 2].exp(), torch.tensor([cosine(0.5), wsd(0.5)]))


def test_regret_is_least_at_the_best_rate() -> None:
    """It is next to nothing at the best rate of the better shape, grows either way, and is bounded."""
    best = LOG_RATES[7]
    curve = curve_with_minimum_at(float(best))
    assert curve.shares[0] > 0.95
    assert float(regret_of(best[None], curve)) < 0.02
    around = regret_of(torch.linspace(float(best) - 3, float(best) + 3, 41), curve)
    assert (around[:20].diff() < 0).all()
    assert (around[21:].diff() > 0).all()
    assert float(curve.regrets.max()) <= WORST


def test_what_is_next_to_nothing_counts_as_equal() -> None:
    """Losses of a millionth and of a billionth of the first one are both as good as 0."""
    reached = torch.full((Teachers.size,), 1e-6)
    reached[3] = 1e-9
    assert float(RegretCurve.of(reached, initial=1.0).regrets.max()) < 1e-3


@pytest.mark.parametrize("off", [-30.0, -2.0, 2.0, 30.0])
def test_regret_leads_back_from_anywhere(off: float) -> None:
    """Also where all teachers were lost, and beyond the rates they tried, the slope points to the best."""
    best = float(LOG_RATES[6])
    rate = torch.tensor([best + off], requires_grad=True)
    regret_of(rate, curve_with_minimum_at(best)).sum().backward()
    assert rate.grad is not None
    assert math.copysign(1, float(rate.grad)) == math.copysign(1, off)


class Watched(DriftReference):
    """The network, which also tells what its cell sees."""

    def __init__(self, spec: DriftSpec) -> None:
        super().__init__(spec)
        self.seen: list[torch.Tensor] = []

    def look(self, extras: Extras, steps: torch.Tensor, runs: DriftRuns) -> torch.Tensor:
        """Keep the features."""
        features = super().look(extras, steps, runs)
        self.seen.append(features.clone())
        return features


@pytest.mark.parametrize("stated", [None, -1, 800])
def test_notes_are_what_the_network_sees(stated: int | None) -> None:
    """At each tick of a long run, the first and that of a jump included, features are those of its cell."""
    phi, spec = 5 * initial_phi(SETTINGS), SETTINGS.architecture()
    starts, generator = torch.tensor([1.0, 0.1, 7.0]), torch.Generator().manual_seed(0)
    conditions = Conditions(optimizer=Optimizer.ADAM, horizon=1000, initial_lr=1e-3, stated_horizon=stated)
    watched = Watched(spec)
    weights = {name: weight[0] for name, weight in unpack(spec, phi[None]).items()}
    notes = Notes(NetworkRates(watched, weights, 3, starts), DriftReference(spec), starts)
    notes.begin(conditions)
    age, steps, ticks = 2 * spec.hidden_size + SCALES + 4, [[], [], []], [[], [], []]
    for step in range(1000):
        losses = torch.rand(3, generator=generator) + 0.5
        losses[1] *= 100 if step == 611 else 1
        before = notes._policy._state[:, age].clone()
        notes.advise(step, losses)
        for row in (notes._policy._state[:, age] > before).nonzero().flatten().tolist():
            steps[row].append(step)
            ticks[row].append(watched.seen[-1][row])
    for row in range(3):
        run = notes.run(row, curve_with_minimum_at(0.0))
        torch.testing.assert_close(run.features.double(), torch.stack(ticks[row]), rtol=0, atol=2e-3)
    assert 611 in steps[1]
    assert 611 not in steps[0]


def test_aims_are_those_of_the_network() -> None:
    """All ticks at once, the same aims come out as one by one: rates go there as fast as they may."""
    phi, spec = 5 * initial_phi(SETTINGS), SETTINGS.architecture()
    starts, fixed = torch.tensor([1.0, 0.1, 7.0]), spec.constants
    notes = Notes(one_network(spec, phi, starts), DriftReference(spec), starts)
    notes.begin(CONDITIONS)
    losses = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) + 0.5
    drifts = torch.stack([notes.advise(step, row) for step, row in enumerate(losses)]).div(1e-3).log()
    for row in range(3):
        aims = Study(spec).aims(phi, notes.run(row, curve_with_minimum_at(0.0)).features[None].float())[0]
        before = torch.cat([(starts[row] / fixed.warmup).log()[None], drifts[:-1, row]])
        expected = before + (aims - before).clamp(-fixed.fall, fixed.rise)
        torch.testing.assert_close(drifts[:, row], expected, rtol=0, atol=0.03)


def test_stakes_are_steps_and_ticks() -> None:
    """What counts at a tick is 0.6 of the steps until the next and 0.4 a tick, as shares of the run."""
    longer = EvolutionSettings(**{**SETTINGS.to_json(), "max_horizon": 400, "min_horizon": 400})
    for run in collect(longer, initial_phi(SETTINGS), 0, 0).runs:
        count = len(run.stakes)
        assert run.features.shape == (count, FEATURES)
        assert run.shares.shape == (len(SHAPES), count)
        steps = (run.stakes - 0.4 / count) * 400 / 0.6
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-2)
        assert float(steps.sum()) == pytest.approx(400, abs=1e-2)
        assert set(steps.round().tolist()) >= {1.0, 2.0}


def test_first_loss_that_is_not_finite_counts_as_none() -> None:
    """Where the loss before the first step is NaN or infinite, curves are as without a floor."""
    reached = torch.linspace(0.1, 1, Teachers.size)
    expected = RegretCurve.of(reached, initial=0.0).regrets
    for initial in (math.nan, math.inf):
        assert torch.equal(RegretCurve.of(reached, initial=initial).regrets, expected)


def test_lesson_is_pure() -> None:
    """A lesson depends on settings, phi and its two numbers alone; it has pupils and some teachers."""
    phi = initial_phi(SETTINGS)
    first, again, other = (collect(SETTINGS, phi, 0, index) for index in (0, 0, 1))
    assert len(first.runs) == PUPILS + WATCHED
    assert all(torch.equal(a.features, b.features) for a, b in zip(first.runs, again.runs, strict=True))
    assert torch.equal(first.runs[0].curve.regrets, again.runs[0].curve.regrets)
    assert not torch.equal(first.runs[0].features, other.runs[0].features)
    assert 0 < first.regret < 2
    assert math.isfinite(first.log_ratio)


def lesson_runs() -> list[ObservedRun]:
    """Return the runs of one lesson under a network that was not trained."""
    return collect(SETTINGS, initial_phi(SETTINGS), 0, 3).runs


def test_gradient_is_that_of_the_regret() -> None:
    """Through all ticks of a run, autograd agrees with finite differences in double precision."""
    runs = lesson_runs()
    phi = initial_phi(SETTINGS).double() * 5
    direction = torch.randn(len(phi), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    study, leaf = Study(SETTINGS.architecture()), phi.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(study.regret(leaf, runs), leaf)
    step = 1e-6
    ahead, behind = (float(study.regret(phi + sign * step * direction, runs)) for sign in (1, -1))
    slope = float(gradient @ direction)
    assert abs(slope) > 1e-3
    assert (ahead - behind) / (2 * step) == pytest.approx(slope, rel=1e-3)


def test_networks_learn() -> None:
    """On one lesson, gone over again and again, sixty steps along the gradient halve the regret."""
    study, search = Study(SETTINGS.architecture()), EvolutionSearch(initial_phi(SETTINGS), averaging=0.9)
    lesson = collect(SETTINGS, search.phi, 0, 3)
    study.add([lesson])
    before = float(study.regret(search.phi, lesson.runs))
    for number in range(60):
        search.step(study.gradient(search.phi, Draw(1, number)), 0.02)
    assert float(study.regret(search.phi, lesson.runs)) < 0.5 * before


def test_study_comes_back_as_it_was() -> None:
    """Saved and loaded, all runs are there, and the next gradient has the same bits; an empty one too."""
    study, other = Study(SETTINGS.architecture()), Study(SETTINGS.architecture())
    other.load_state_dict(study.state_dict())
    assert other.state_dict() == {}
    study.add([collect(SETTINGS, initial_phi(SETTINGS), 0, index) for index in range(2)])
    other.load_state_dict(study.state_dict())
    phi = initial_phi(SETTINGS)
    assert torch.equal(study.gradient(phi, Draw(1)), other.gradient(phi, Draw(1)))


def test_gradient_that_is_not_finite_says_nothing() -> None:
    """One infinite or NaN entry does not reach phi; a long gradient is cut, a short one is as it is."""
    assert torch.equal(limited(torch.tensor([1.0, math.inf])), torch.zeros(2))
    assert torch.equal(limited(torch.tensor([1.0, math.nan])), torch.zeros(2))
    assert float(limited(torch.tensor([30.0, 40.0])).norm()) == pytest.approx(MAX_NORM)
    assert torch.equal(limited(torch.tensor([0.1, 0.0])), torch.tensor([0.1, 0.0]))


def test_evolution_starts_afresh_from_the_clone() -> None:
    """When cloning is over, phi stays, Adam's moments and the lessons are dropped."""
    settings = EvolutionSettings(
        **{**SETTINGS.to_json(), "population": 4, "cloning_updates": 2, "cloning_steps": 3}
    )
    training = Evolution(settings)
    for _ in range(2):
        training.advance()
    assert training.search.age == 2 * 3
    assert training.study is not None
    training.advance()
    assert (training.search.age, training.steps_done) == (1, 3)
    assert training.study is None


def test_rates_of_both_stages_fall_from_their_own_start() -> None:
    """Adam's rate falls from `cloning_lr` while cloning, then from `meta_lr` to `final_meta_lr`."""
    settings = EvolutionSettings(
        updates=10, cloning_updates=4, cloning_lr=0.1, meta_lr=0.5, final_meta_lr=0.05
    )
    training, rates = Evolution(settings), []
    for update in range(10):
        training.steps_done = update
        if update == 4:
            training._share_cloned = training._share
        rates.append(training.meta_lr())
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
