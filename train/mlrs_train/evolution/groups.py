"""The members of a population are in groups: where each starts, and what it is shown."""

from __future__ import annotations

import math

from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.trainings.conditions import Conditions
from mlrs_train.evolution.trainings.policies import Views

FOUND = 0.75
"""How often a group starts where a search would lead: around the best learning rate."""
OCTAVES = 1.2
"""By how much that is off, a standard deviation in octaves."""
SIGNALS = 0.65
"""How often a group is shown signals."""
VALIDATIONS = 0.45
"""How often a group is shown validation losses."""


def draw_views(draw: Draw, n: int, conditions: Conditions, best: float) -> Views:
    """Return a random view for n members.

    Args:
        draw: where chance comes from.
        n: members.
        conditions: of the training.
        best: the learning rate that searches look for.
    """
    signals, validations = draw.chance(SIGNALS), draw.chance(VALIDATIONS)
    if draw.chance(FOUND):
        return Views.of(n, draw_found(draw, best), OCTAVES, signals=signals, validations=validations)
    start = math.nan
    if draw.chance(0.3):
        start = conditions.default_lr * draw.log_uniform(0.1, 10.0)
    return Views.of(n, start, math.nan, signals=signals, validations=validations)


def draw_found(draw: Draw, best: float) -> float:
    """Return the learning rate that a search might find."""
    factor: float = 2.0 ** (OCTAVES * draw.normal(1).item())
    return best * factor
