"""The members of a population are in groups: where each starts, and what it is shown."""

from __future__ import annotations

import math

from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.trainings.conditions import Conditions
from mlrs_train.evolution.trainings.policies import Views

FOUND = 0.75
"""How often a group starts where a search would lead: around the best learning rate."""
OCTAVES = 1.2
"""By how much a search says that it may be off: a standard deviation, in octaves."""
ERRORS = {(-0.4, 0.9): 0.7, (-2.5, 2.0): 0.25, (1.0, 1.5): 0.05}
"""How often a search is how far off: mean and standard deviation, in octaves. Most are a little too low, some
by far; few are too high, for that shows in their trials. Chosen on the benchmark's development rows."""
OFF = 0.3
"""How often a start without a search is not the default rate."""
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
    return Views.of(n, draw_unsearched(draw, conditions), math.nan, signals=signals, validations=validations)


def draw_found(draw: Draw, best: float) -> float:
    """Return the learning rate that a search might find."""
    mean, spread = draw.pick(list(ERRORS), list(ERRORS.values()))
    factor: float = 2.0 ** (mean + spread * draw.normal(1).item())
    return best * factor


def draw_unsearched(draw: Draw, conditions: Conditions) -> float:
    """Return where a training without a search might start: most often at the default learning rate."""
    return conditions.default_lr * (draw.log_uniform(0.1, 10.0) if draw.chance(OFF) else 1.0)
