"""The hand-made schedules that the examples compare advice with, each at its default."""

from __future__ import annotations

import math

DEFAULT_LR = 0.1
"""The default learning rate of SGD without momentum."""
NAMES = ["constant", "cosine", "step"]


def scheduled_lr(name: str, step: int, horizon: int) -> float:
    """Return a schedule's LR at a step: constant, cosine to 0, or a tenth at 1/2 and again at 3/4."""
    if name == "constant":
        return DEFAULT_LR
    if name == "cosine":
        return DEFAULT_LR * (1 + math.cos(math.pi * step / horizon)) / 2
    return DEFAULT_LR * 0.1 ** ((step >= horizon // 2) + (step >= 3 * horizon // 4))
