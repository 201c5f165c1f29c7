"""What one task says about phi. A pure function of the settings, phi and two numbers."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mlrs_core.networks.drift.reference import DriftReference
from mlrs_core.networks.drift.spec import DriftSpec
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.estimator import antithetic, gradient
from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.evolution.trainings.conditions import Conditions, draw_conditions, draw_weight_scale
from mlrs_train.evolution.trainings.families import Family, choose_families
from mlrs_train.evolution.trainings.policies import NetworkRates, ScheduleRates, SideBySide
from mlrs_train.evolution.trainings.problem import Problem
from mlrs_train.evolution.trainings.rollout import rollout
from mlrs_train.tasks import Params

TRAINING, START, HELD_OUT = range(3)
"""What random numbers are for: the first number of their key."""
YARDSTICK = ScheduleRates([("cosine", 1.0)])
"""What every population is logged against: cosine from the update rule's default learning rate."""


@dataclass(frozen=True)
class Sample:
    """What one task says about phi."""

    estimate: Tensor
    """The estimated gradient, (weights,)."""
    fitness: Tensor
    """What the objective made of each member, (population,)."""
    yardstick: float
    """What it made of the yardstick."""

    @property
    def log_ratio(self) -> float:
        """Return the mean log-ratio of the members to the yardstick; below 0 is better than it."""
        return float(log_ratio(self.fitness, torch.tensor(self.yardstick)).mean())


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
    perturbations = antithetic(draw, settings.population // 2, len(phi))
    members = networks(settings.architecture(), phi + settings.sigma * perturbations)
    everyone = SideBySide([members, YARDSTICK])
    values = rollout(problem, conditions, everyone, draw, settings.objective)
    fitness = values[: members.size]
    return Sample(gradient(fitness, perturbations), fitness, float(values[-1]))


def draw_task(draw: Draw, family: Family, settings: EvolutionSettings) -> tuple[Problem, Conditions]:
    """Return a task of a family, and its conditions."""
    problem = family.sample(draw)
    longest = max(settings.min_horizon, round(family.reach * settings.max_horizon))
    conditions = draw_conditions(draw, problem, shortest=settings.min_horizon, longest=longest)
    scale = draw_weight_scale(draw, conditions.optimizer)
    return dataclasses.replace(problem, weight_scale=scale), conditions


def networks(spec: DriftSpec, rows: Tensor) -> NetworkRates:
    """Return one network for each row of weights, (n, weights)."""
    return NetworkRates(DriftReference(spec), unpack(spec, rows), len(rows))


def one_network(spec: DriftSpec, phi: Tensor, starts: Tensor) -> NetworkRates:
    """Return copies under one network, (weights,), each from a first rate over the default one, (n,)."""
    weights = {name: weight[0] for name, weight in unpack(spec, phi[None]).items()}
    return NetworkRates(DriftReference(spec), weights, len(starts), starts)


def unpack(spec: DriftSpec, rows: Tensor) -> Params:
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
