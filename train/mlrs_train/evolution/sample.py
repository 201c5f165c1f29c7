"""What one task says about phi. A pure function of the settings, phi and two numbers."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mlrs_core.networks.tail.spec import TailSpec
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.estimator import antithetic, gradient
from mlrs_train.evolution.groups import draw_views
from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.evolution.trainings.conditions import Conditions, draw_conditions, draw_scales
from mlrs_train.evolution.trainings.families import Family, choose_families
from mlrs_train.evolution.trainings.policies import NetworkRates, ScheduleRates, SideBySide, Views
from mlrs_train.evolution.trainings.problem import Problem
from mlrs_train.evolution.trainings.rollout import rollout
from mlrs_train.evolution.trainings.starts import best_start, pretrained
from mlrs_train.tasks import Params

TRAINING, START, HELD_OUT, LESSON, STUDY = range(5)
"""What random numbers are for: the first number of their key."""
PRETRAINED = 0.08
"""How often a training starts from weights that were trained before."""
FROM_ZERO = 0.1
"""How often the last layer starts at zero."""


@dataclass(frozen=True)
class Sample:
    """What one task says about phi."""

    estimate: Tensor
    """The estimated gradient, (weights,)."""
    fitness: Tensor
    """What the objective made of each member, (population,)."""
    yardstick: float
    """What it made of the schedule alone, from the best start."""

    @property
    def log_ratio(self) -> float:
        """Return the median log-ratio of the members to the yardstick; below 0 is better."""
        return float(log_ratio(self.fitness, torch.tensor(self.yardstick)).median())


def draw_sample(settings: EvolutionSettings, phi: Tensor, update: int, index: int) -> Sample:
    """Train a population around phi on one random task.

    Args:
        settings: of the training.
        phi: (weights,).
        update: the number of the update.
        index: the number of the task within it.
    """
    draw = Draw(TRAINING, settings.seed, update, index)
    families = choose_families(settings.families)
    weights = [family.weight for family in families.values()]
    problem, conditions = draw_task(draw, draw.pick(list(families.values()), weights), settings)
    best = best_start(problem, conditions, draw)
    pairs = settings.population // 2 // settings.groups
    perturbations = [antithetic(draw, pairs, len(phi)) for _ in range(settings.groups)]
    views = [draw_views(draw, 2 * pairs, conditions, best) for _ in range(settings.groups)]
    members = NetworkRates(
        settings.architecture(), phi + settings.sigma * torch.cat(perturbations), Views.joined(views)
    )
    plain = ScheduleRates(["wsd"], torch.tensor([best]))
    outcomes = rollout(problem, conditions, SideBySide([members, plain]), draw, settings.objective)
    estimates = []
    for group, (view, moved) in enumerate(zip(views, perturbations, strict=True)):
        fitness = outcomes.fitness(validated=bool(view.validations.any()))
        estimates.append(gradient(fitness[2 * pairs * group :][: 2 * pairs], moved))
    judged = outcomes.judged
    return Sample(torch.stack(estimates).mean(0), judged[: members.size], float(judged[-1]))


def draw_task(draw: Draw, family: Family, settings: EvolutionSettings) -> tuple[Problem, Conditions]:
    """Return a task of a family, and its conditions."""
    problem = family.sample(draw)
    longest = max(settings.min_horizon, round(family.reach * settings.max_horizon))
    conditions = draw_conditions(draw, problem, shortest=settings.min_horizon, longest=longest)
    if draw.chance(FROM_ZERO):
        last = [name for name in problem.params if name.endswith("weight")][-1:]
        zeros = {name: torch.zeros_like(problem.params[name]) for name in last}
        problem = dataclasses.replace(problem, params={**problem.params, **zeros})
    problem = dataclasses.replace(problem, scales=draw_scales(draw, problem, conditions.optimizer))
    if draw.chance(PRETRAINED):
        problem = pretrained(problem, conditions, draw)
    return problem, conditions


def unpack(spec: TailSpec, rows: Tensor) -> Params:
    """Return weights by name, each (n, ...), from rows (n, weights)."""
    shapes = spec.weight_shapes()
    parts = torch.split(rows, [math.prod(shape) for shape in shapes.values()], dim=1)
    return {
        name: part.reshape(len(rows), *shape)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


def log_ratio(value: Tensor, other: Tensor) -> Tensor:
    """Return ln(value / other); losses that are 0 to any practical purpose count as equal."""
    least = 1e-7
    return torch.log((value + least) / (other + least))
