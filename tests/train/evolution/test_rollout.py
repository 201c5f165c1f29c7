"""One batched training is many plain ones."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from mlrs_core.config import Optimizer
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.method import initial_phi
from mlrs_train.evolution.objective import CAP, capped, evaluation_steps
from mlrs_train.evolution.sample import networks
from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.evolution.trainings.conditions import Conditions, draw_conditions
from mlrs_train.evolution.trainings.families.perceptrons import teacher_mlp
from mlrs_train.evolution.trainings.optimizers import UpdateRule, clip
from mlrs_train.evolution.trainings.policies import ScheduleRates, SideBySide
from mlrs_train.evolution.trainings.problem import Problem
from mlrs_train.evolution.trainings.rollout import rollout
from mlrs_train.tasks import Examples

SETTINGS = EvolutionSettings(hidden_size=6)
LRS = torch.tensor([0.3, 0.01, 0.001])
STEPS = 25
MU = 0.95


@pytest.fixture(scope="module")
def problem() -> Problem:
    """A small classifier."""
    return teacher_mlp(Draw(3))


def in_double(problem: Problem) -> Problem:
    """Return a problem in double precision, where Adam does not magnify the last bits of small numbers."""
    return dataclasses.replace(
        problem,
        params={name: tensor.double() for name, tensor in problem.params.items()},
        train=Examples(problem.train.inputs.double(), problem.train.targets),
    )


def torch_optimizer(rule: Optimizer, weight: Tensor, lr: float, decay: float) -> torch.optim.Optimizer:
    """Return torch's own update rule."""
    match rule:
        case Optimizer.ADAM:
            return torch.optim.Adam([weight], lr=lr, weight_decay=decay)
        case Optimizer.ADAMW:
            return torch.optim.AdamW([weight], lr=lr, weight_decay=decay)
        case _:
            momentum = 0.0 if rule is Optimizer.SGD else MU
            nesterov = rule is Optimizer.NESTEROV
            return torch.optim.SGD([weight], lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=decay)


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize(
    "rule", [Optimizer.SGD, Optimizer.MOMENTUM, Optimizer.NESTEROV, Optimizer.ADAM, Optimizer.ADAMW]
)
def test_batched_steps_are_those_of_torch(problem: Problem, rule: Optimizer, decay: float) -> None:
    """Each copy moves as a plain loop with torch.optim moves it, clipping and changing rates included."""
    problem = in_double(problem)
    rows = problem.copies(3)
    updates = UpdateRule(rule, rows, momentum=MU, weight_decay=decay)
    single = [problem.copies(1).requires_grad_() for _ in LRS]
    optimizers = [
        torch_optimizer(rule, weight, float(lr), decay) for weight, lr in zip(single, LRS, strict=True)
    ]
    draw = Draw(1)
    for step in range(STEPS):
        batch = problem.train.take(draw.integers(len(problem.train), 16))
        fade = 1 - step / STEPS
        _, gradients = problem.value_and_grad(rows, batch)
        updates.apply(rows, clip(gradients, 0.5), LRS * fade)
        for weight, optimizer, lr in zip(single, optimizers, LRS, strict=True):
            optimizer.param_groups[0]["lr"] = float(lr) * fade
            optimizer.zero_grad()
            problem.losses(problem.unpack(weight), batch).sum().backward()
            torch.nn.utils.clip_grad_norm_([weight], 0.5)
            optimizer.step()
    torch.testing.assert_close(rows, torch.cat(single).detach(), rtol=1e-5, atol=1e-5)


def test_member_is_a_single_run(problem: Problem) -> None:
    """Member i under network i ends where a run alone under that network ends."""
    conditions = Conditions(optimizer=Optimizer.MOMENTUM, horizon=STEPS, initial_lr=0.01)
    phi = initial_phi(SETTINGS) + 0.3 * Draw(2).normal(4, len(initial_phi(SETTINGS)))
    spec = SETTINGS.architecture()
    together = rollout(problem, conditions, networks(spec, phi), Draw(7), "final")
    alone = [rollout(problem, conditions, networks(spec, row[None]), Draw(7), "final") for row in phi]
    assert together.std() > 1e-4
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-6)


def test_untrained_network_goes_to_the_default_rate() -> None:
    """Before any update the learning rate goes from a fifth of the initial one to its default."""
    fixed = SETTINGS.architecture().constants
    policy = networks(SETTINGS.architecture(), initial_phi(SETTINGS)[None])
    policy.begin(Conditions(optimizer=Optimizer.ADAM, horizon=300, initial_lr=0.04))
    rates = [float(policy.advise(step, torch.tensor([2.3]))) for step in range(30)]
    least = 0.04 / fixed.warmup * math.exp(-fixed.fall)  # as far down as it can
    assert rates[0] == pytest.approx(least, rel=1e-3)
    assert rates[-1] == pytest.approx(1e-3, rel=0.2)


def test_divergence_is_capped_and_private(problem: Problem) -> None:
    """A copy that explodes counts as CAP times its start, and moves no other copy."""
    conditions = Conditions(optimizer=Optimizer.SGD, horizon=60, initial_lr=0.1)
    sane, mad = ScheduleRates([("cosine", 0.1), ("constant", 1.0)]), ScheduleRates([("constant", 1e12)])
    values = rollout(problem, conditions, SideBySide([sane, mad]), Draw(1), "final")
    initial = problem.evaluate(problem.copies(1))
    assert values.isfinite().all()
    assert values[2] <= CAP * initial[0] * (1 + 1e-6)
    torch.testing.assert_close(values[:2], rollout(problem, conditions, sane, Draw(1), "final"))


def test_cap_takes_any_value() -> None:
    """NaN and infinity count as the cap, and less than it as itself."""
    losses = torch.tensor([0.5, 9.0, math.nan, math.inf, -math.inf])
    assert capped(losses, torch.ones(5)).tolist() == [0.5, CAP, CAP, CAP, CAP]


def test_network_survives_divergence(problem: Problem) -> None:
    """A network whose run explodes is stated finite losses, and answers finite rates."""
    conditions = Conditions(
        optimizer=Optimizer.SGD, horizon=40, initial_lr=100.0, loss_scale=1e3, loss_offset=1e5
    )
    policy = networks(SETTINGS.architecture(), initial_phi(SETTINGS)[None])
    hot = dataclasses.replace(problem, losses=lambda params, batch: 1e9 * problem.losses(params, batch))
    assert rollout(hot, conditions, policy, Draw(1), "area").isfinite().all()
    assert policy.advise(40, conditions.report(torch.tensor([math.nan]))).isfinite().all()


@pytest.mark.parametrize(("rule", "power"), [(Optimizer.MOMENTUM, 2), (Optimizer.ADAM, 1)])
def test_weight_scale_moves_the_rates(problem: Problem, rule: Optimizer, power: int) -> None:
    """With weights s v, v trains at 1/s^2 of the rate (1/s under Adam) as the weights did."""
    scaled = dataclasses.replace(problem, weight_scale=5.0)
    conditions = Conditions(optimizer=rule, horizon=STEPS, initial_lr=0.01)
    plain = rollout(problem, conditions, ScheduleRates([("cosine", 1.0)]), Draw(1), "final")
    other = rollout(scaled, conditions, ScheduleRates([("cosine", 5.0**-power)]), Draw(1), "final")
    torch.testing.assert_close(plain, other, rtol=1e-3, atol=1e-5)


def test_objectives_look_where_they_say() -> None:
    """`final` takes the last step, `window` the last tenth, `area` all of it."""
    assert evaluation_steps("final", 200) == {200}
    assert evaluation_steps("window", 200) == {184, 188, 192, 196, 200}
    assert max(evaluation_steps("area", 200)) == 200
    assert len(evaluation_steps("area", 200)) == 16
    assert evaluation_steps("area", 2) == {1, 2}


def test_conditions_vary(problem: Problem) -> None:
    """Half of the starts are off; momenta differ; horizons, class counts and losses may be disguised."""
    draws = [draw_conditions(Draw(8, k), problem, shortest=100, longest=1000) for k in range(400)]
    factors = [condition.initial_lr / condition.default_lr for condition in draws]
    off = sum(factor != 1 for factor in factors)
    assert 150 < off < 250
    assert 1 / 30 <= min(factors) < 0.1
    assert 7 < max(factors) <= 10
    assert {condition.optimizer for condition in draws} == set(Optimizer) - {
        Optimizer.UNSPECIFIED,
        Optimizer.OTHER,
    }
    assert 40 < sum(condition.stated_horizon == -1 for condition in draws) < 100
    short = [condition for condition in draws if condition.stated_horizon not in (None, -1)]
    assert 5 < len(short) < 40
    assert all(0.5 <= condition.stated_horizon / condition.horizon <= 0.96 for condition in short)
    assert {condition.momentum for condition in draws} == {0.8, 0.9, 0.95, 0.98}
    assert 100 < sum(math.isnan(condition.log_classes) for condition in draws) < 220
    assert any(condition.loss_offset for condition in draws)
    assert all(100 <= condition.horizon <= 1000 for condition in draws)
