"""What one task teaches: recorded trainings, and what each learning rate would have cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.groups import OCTAVES, draw_found, draw_unsearched
from mlrs_train.evolution.lessons.costs import costs_of
from mlrs_train.evolution.lessons.recording import Recorded, Recording, draw_plans
from mlrs_train.evolution.sample import LESSON, draw_task
from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.evolution.trainings.families import choose_families
from mlrs_train.evolution.trainings.rollout import rollout
from mlrs_train.evolution.trainings.starts import RATES, best_of, tried

FOUND, UNSEARCHED = 18, 6
"""Recorded trainings that start where a search might lead, and without a search."""
TINY = 1e-7
"""Added to losses whose logarithm is taken."""
OVERFITTED = 0.35
"""How much a task counts whose best rate for the judged loss is an octave below that for the training loss:
the generated tasks overfit more often than others do."""


@dataclass(frozen=True)
class Lesson:
    """What one task teaches."""

    trainings: list[Recorded]
    """Trainings on the task."""
    horizon: int
    """Their steps."""
    lowest: float
    """The logarithm of the lowest learning rate whose cost is known."""
    costs: Tensor
    """What rates cost by the judged loss, (rates,), for networks that are shown validation losses."""
    costs_unseen: Tensor
    """What they cost for networks that are not, (rates,)."""
    weight: float
    """How much it counts."""


def give_lesson(settings: EvolutionSettings, number: int) -> Lesson:
    """Return a lesson: a pure function of the settings and its number.

    Args:
        settings: of the training.
        number: of the lesson.
    """
    draw = Draw(LESSON, settings.seed, number)
    families = list(choose_families(settings.families).values())
    family = draw.pick(families, [family.weight for family in families])
    problem, conditions = draw_task(draw, family, settings)
    outcomes = tried(problem, conditions, draw)
    lowest = math.log(conditions.default_lr * RATES[0])
    by_training, by_judged = (best_of(losses) for losses in (outcomes.trained, outcomes.judged))
    searched = conditions.default_lr * by_training
    starts = np.array(
        [draw_found(draw, searched) for _ in range(FOUND)]
        + [draw_unsearched(draw, conditions) for _ in range(UNSEARCHED)]
    )
    octaves = np.array([OCTAVES] * FOUND + [math.nan] * UNSEARCHED)
    ideals = np.clip(math.log(conditions.default_lr * by_judged) - np.log(starts), -6.0, 6.0)
    recording = Recording(settings.architecture(), starts, octaves, draw_plans(draw, ideals))
    rollout(problem, conditions, recording, draw, "final")
    return Lesson(
        recording.recorded(),
        conditions.horizon,
        lowest,
        costs_of(torch.log(outcomes.fitness(validated=True) + TINY)),
        costs_of(torch.log(outcomes.fitness(validated=False) + TINY)),
        OVERFITTED if by_judged < by_training / 2 else 1.0,
    )
