"""Shapes of schedules that meta-training compares with."""

from __future__ import annotations

import math


def cosine_share(step: float, horizon: float) -> float:
    """Return the share of the base learning rate at a step: half a cosine, from 1 to 0 at the horizon."""
    return (1 + math.cos(math.pi * step / horizon)) / 2
