"""The members of a population are in groups: where each starts, and what it is shown."""

from __future__ import annotations

import math

from mlrs_core.search.race import Found
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.trainings.conditions import Conditions
from mlrs_train.evolution.trainings.policies import Views

FOUND = 0.75
"""How often a group starts where a search leads."""
NEAR, FAR = 0.8, 2.0
"""By how much it is off, a standard deviation in octaves: mostly, and in one of ten groups."""
SIGNALS = 0.65
"""How often a group is shown signals."""
VALIDATIONS = 0.45
"""How often a group is shown validation losses."""


def draw_views(draw: Draw, n: int, conditions: Conditions, found: Found) -> Views:
    """Return a random view for n members."""
    signals, validations = draw.chance(SIGNALS), draw.chance(VALIDATIONS)
    if draw.chance(FOUND):
        spread = FAR if draw.chance(0.1) else NEAR
        start = found.learning_rate * 2.0 ** (spread * draw.normal(1).item())
        return Views.of(n, start, found.octaves, signals=signals, validations=validations)
    start = math.nan
    if draw.chance(0.3):
        start = conditions.default_lr * draw.log_uniform(0.1, 10.0)
    return Views.of(n, start, math.nan, signals=signals, validations=validations)
