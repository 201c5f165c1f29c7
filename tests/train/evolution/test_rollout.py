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
from mlrs_train.evolution.objective import CAP, Outcomes, capped, evaluation_steps
from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.evolution.trainings.conditions import Conditions, draw_conditions
from mlrs_train.evolution.trainings.families.perceptrons import teacher_mlp
from mlrs_train.evolution.trainings.optimizers import UpdateRule, clip
from mlrs_train.evolution.trainings.policies import NetworkRates, ScheduleRates, Shown, SideBySide, Views
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
        valid=Examples(problem.valid.inputs.double(), problem.valid.targets),
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
    conditions = Conditions(optimizer=Optimizer.MOMENTUM, horizon=STEPS)
    phi = initial_phi(SETTINGS) + 0.3 * Draw(2).normal(4, len(initial_phi(SETTINGS)))
    spec, nothing = SETTINGS.architecture(), Views.of(1, math.nan, math.nan, signals=False, validations=False)
    views = [Views.of(1, 0.02, 1.0, signals=True, validations=True), nothing, nothing, nothing]
    members = NetworkRates(spec, phi, Views.joined(views))
    together = rollout(problem, conditions, members, Draw(7), "final").judged
    alone = [
        rollout(problem, conditions, NetworkRates(spec, row[None], view), Draw(7), "final").judged
        for row, view in zip(phi, views, strict=True)
    ]
    assert together.std() > 1e-4
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-6)


def test_untrained_network_follows_its_schedule() -> None:
    """Before any update the network hardly corrects the schedule that it starts with."""
    views = Views.of(1, 0.04, 1.0, signals=False, validations=False)
    policy = NetworkRates(SETTINGS.architecture(), initial_phi(SETTINGS)[None], views)
    schedule = ScheduleRates(["wsd"], torch.tensor([0.04]))
    for each in (policy, schedule):
        each.begin(Conditions(optimizer=Optimizer.ADAM, horizon=100))
    for step in range(100):
        observed = Shown(torch.tensor([2.3]))
        rate, plain = float(policy.advise(step, observed)), float(schedule.advise(step, observed))
        assert rate == pytest.approx(plain, rel=0.15)


@pytest.mark.parametrize("rule", [Optimizer.SGD, Optimizer.MOMENTUM, Optimizer.ADAMW])
def test_signals_are_those_of_the_step_before(problem: Problem, rule: Optimizer) -> None:
    """A policy is shown, at every step but the first two, norms and products of the step before."""
    problem = in_double(problem)
    conditions = Conditions(optimizer=rule, horizon=STEPS, weight_decay=0.01, clip=0.5)
    shown = Noting(LRS)
    rollout(problem, conditions, shown, Draw(1), "final")
    assert [one is None for one in shown.signals] == [True, True] + [False] * (STEPS - 2)
    rows, updates, draw = problem.copies(3), None, Draw(1)
    updater = UpdateRule(rule, rows, momentum=conditions.momentum, weight_decay=0.01)
    for step in range(STEPS - 1):
        batch = problem.train.take(draw.integers(len(problem.train), problem.batch_size))
        gradients = clip(problem.value_and_grad(rows, batch)[1], 0.5)
        before, updates = updates, updater.apply(rows, gradients, LRS)
        if before is None:
            continue
        weights, moves = problem.unpack(rows), problem.unpack(updates)
        tensors = [name for name, tensor in problem.params.items() if tensor.dim() > 1]
        relative = [
            torch.log(moves[name].flatten(1).norm(dim=1) / weights[name].flatten(1).norm(dim=1))
            for name in tensors
        ]
        expected = torch.stack(
            [
                updates.square().sum(1),
                rows.square().sum(1),
                gradients.square().sum(1),
                (gradients * updates).sum(1),
                (gradients * before).sum(1),
                torch.stack(relative).mean(0),
            ],
            dim=1,
        )
        torch.testing.assert_close(shown.signals[step + 1][:, :6], expected)


def test_validation_losses_come_now_and_then(problem: Problem) -> None:
    """A policy is shown the loss on one half of the held-out examples, and judged on the other."""
    conditions = Conditions(optimizer=Optimizer.SGD, horizon=STEPS, validate_every=10)
    shown = Noting(LRS)
    rollout(problem, conditions, shown, Draw(1), "final")
    told = [step for step, one in enumerate(shown.signals) if one is not None and one[0, 6].isfinite()]
    assert told == [10, 20]
    rows, draw = problem.copies(3), Draw(1)
    updater = UpdateRule(Optimizer.SGD, rows, momentum=conditions.momentum, weight_decay=0.0)
    for _ in range(10):
        batch = problem.train.take(draw.integers(len(problem.train), problem.batch_size))
        updater.apply(rows, problem.value_and_grad(rows, batch)[1], LRS)
    torch.testing.assert_close(shown.signals[10][:, 6].float(), problem.evaluate(rows, problem.shown))
    assert problem.shown.stop == problem.judged.start
    halves = problem.evaluate(rows, problem.shown) + problem.evaluate(rows, problem.judged)
    torch.testing.assert_close(halves / 2, problem.evaluate(rows))


class Noting:
    """A policy of constant rates that notes what it is shown."""

    sees = (True, True)

    def __init__(self, rates: Tensor) -> None:
        """Advise these, (n,)."""
        self.size = len(rates)
        self._rates = rates
        self.signals: list[Tensor | None] = []

    def begin(self, conditions: Conditions) -> None:
        """Do nothing."""

    def advise(self, step: int, observed: Shown) -> Tensor:
        """Note what was observed."""
        assert step == len(self.signals)
        self.signals.append(observed.signals)
        return self._rates


def test_divergence_is_capped_and_private(problem: Problem) -> None:
    """A copy that explodes counts as CAP times its start, and moves no other copy."""
    conditions = Conditions(optimizer=Optimizer.SGD, horizon=60)
    sane = ScheduleRates(["cosine", "wsd"], torch.tensor([0.01, 0.1]))
    mad = ScheduleRates(["linear"], torch.tensor([1e11]))
    values = rollout(problem, conditions, SideBySide([sane, mad]), Draw(1), "final").judged
    initial = problem.evaluate(problem.copies(1), problem.judged)
    assert values.isfinite().all()
    assert values[2] <= CAP * initial[0] * (1 + 1e-6)
    torch.testing.assert_close(values[:2], rollout(problem, conditions, sane, Draw(1), "final").judged)


def test_cap_takes_any_value() -> None:
    """NaN and infinity count as the cap, and less than it as itself."""
    losses = torch.tensor([0.5, 9.0, math.nan, math.inf, -math.inf])
    assert capped(losses, torch.ones(5)).tolist() == [0.5, CAP, CAP, CAP, CAP]


def test_networks_are_judged_by_what_they_can_see() -> None:
    """Shown validation losses, the judged loss counts; without them overfitting is half forgiven."""
    outcomes = Outcomes(judged=torch.tensor([0.4, 0.9]), trained=torch.tensor([0.4, 0.1]))
    assert outcomes.fitness(validated=True).tolist() == outcomes.judged.tolist()
    assert outcomes.fitness(validated=False).tolist() == pytest.approx([0.4, 0.3])


def test_the_training_loss_is_that_of_the_weights_at_the_end(problem: Problem) -> None:
    """After a training from a good rate both losses have fallen; after one at rate 0 neither has."""
    policy = ScheduleRates(["cosine", "cosine"], torch.tensor([0.0, 0.05]))
    outcomes = rollout(problem, Conditions(optimizer=Optimizer.ADAM, horizon=60), policy, Draw(1), "final")
    first = problem.training_losses(problem.copies(1))
    assert float(outcomes.trained[0]) == pytest.approx(float(first), rel=1e-5)
    assert outcomes.trained[1] < 0.9 * outcomes.trained[0]
    assert outcomes.judged[1] < outcomes.judged[0]


def test_network_survives_divergence(problem: Problem) -> None:
    """A network whose run explodes is stated finite losses, and answers finite rates."""
    conditions = Conditions(optimizer=Optimizer.SGD, horizon=40, loss_scale=1e3, loss_offset=1e5)
    views = Views.of(1, 100.0, math.nan, signals=True, validations=True)
    policy = NetworkRates(SETTINGS.architecture(), initial_phi(SETTINGS)[None], views)
    hot = dataclasses.replace(problem, losses=lambda params, batch: 1e9 * problem.losses(params, batch))
    assert rollout(hot, conditions, policy, Draw(1), "area").judged.isfinite().all()
    assert policy.advise(40, Shown(conditions.report(torch.tensor([math.nan])))).isfinite().all()


@pytest.mark.parametrize(("rule", "power"), [(Optimizer.MOMENTUM, 2), (Optimizer.ADAM, 1)])
def test_scales_move_the_rates(problem: Problem, rule: Optimizer, power: int) -> None:
    """With weights s v, v trains at 1/s^2 of the rate (1/s under Adam) as the weights did."""
    scaled = dataclasses.replace(problem, scales=dict.fromkeys(problem.params, 5.0))
    conditions = Conditions(optimizer=rule, horizon=STEPS)
    plain, other = (
        rollout(chosen, conditions, ScheduleRates(["cosine"], torch.tensor([rate])), Draw(1), "final").judged
        for chosen, rate in ((problem, 0.01), (scaled, 0.01 * 5.0**-power))
    )
    torch.testing.assert_close(plain, other, rtol=1e-3, atol=1e-5)


def test_each_parameter_may_have_a_scale(problem: Problem) -> None:
    """What is trained is each parameter over its scale; the model is the same."""
    name = next(iter(problem.params))
    scaled = dataclasses.replace(problem, scales={name: 4.0})
    rows = scaled.copies(1)
    torch.testing.assert_close(scaled.unpack(rows)[name][0], problem.params[name])
    assert not torch.equal(rows, problem.copies(1))
    torch.testing.assert_close(scaled.evaluate(rows), problem.evaluate(problem.copies(1)))


def test_objectives_look_where_they_say() -> None:
    """`final` takes the last step, `window` the last tenth, `area` all of it."""
    assert evaluation_steps("final", 200) == {200}
    assert evaluation_steps("window", 200) == {184, 188, 192, 196, 200}
    assert max(evaluation_steps("area", 200)) == 200
    assert len(evaluation_steps("area", 200)) == 16
    assert evaluation_steps("area", 2) == {1, 2}


def test_conditions_vary(problem: Problem) -> None:
    """Momenta differ; horizons, class counts and losses may be disguised."""
    draws = [draw_conditions(Draw(8, k), problem, shortest=100, longest=1000) for k in range(400)]
    assert {condition.optimizer for condition in draws} == set(Optimizer) - {
        Optimizer.UNSPECIFIED,
        Optimizer.OTHER,
    }
    assert 20 < sum(condition.stated_horizon == -1 for condition in draws) < 50
    short = [condition for condition in draws if condition.stated_horizon not in (None, -1)]
    assert 3 < len(short) < 30
    assert all(0.5 <= condition.stated_horizon / condition.horizon <= 0.96 for condition in short)
    assert {condition.momentum for condition in draws} == {0.8, 0.9, 0.95, 0.98}
    assert 100 < sum(math.isnan(condition.log_classes) for condition in draws) < 220
    assert any(condition.loss_offset for condition in draws)
    assert all(100 <= condition.horizon <= 1000 for condition in draws)
