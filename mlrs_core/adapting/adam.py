"""Adam as `torch.optim.Adam` has it (Kingma & Ba 2015, algorithm 1; weight decay in the gradient)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mlrs_core.compiled import compiled, wide
from mlrs_core.policy import Floats

Vector = npt.NDArray[np.float32]
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""The constants of Adam, at torch's defaults."""
MAX_GRADIENT = 1e15
"""A gradient with a larger entry is scaled down to it, so that squares fit into single precision."""
MAX_WEIGHT = 1e9
"""Weights stay within plus and minus this, as a model's must."""


@compiled
def direction(
    weights: Vector,
    first: Vector,
    second: Vector,
    gradient: Floats,
    factor: float,
    count: int,
    learning_rate: float,
    weight_decay: float,
    move: Floats,
) -> bool:
    """Take a gradient in; return whether it moves the weights. One that is 0, or not finite, changes nothing.

    Args:
        weights: (P,).
        first: the first moments, (P,); changed.
        second: the second moments, (P,); changed.
        gradient: (P,).
        factor: times the gradient, this is the gradient of the loss.
        count: which step of Adam's it is, from 1.
        learning_rate: the learning rate of Adam.
        weight_decay: the weight decay of Adam.
        move: (P,), filled with how the weights are to move.
    """
    largest = 0.0
    for index in range(len(gradient)):
        largest = max(largest, abs(gradient[index] * factor))
    if not (math.isfinite(largest) and largest > 0):
        return False
    if largest > MAX_GRADIENT:
        factor *= MAX_GRADIENT / largest
    rate = learning_rate / (1 - BETA1**count)
    correction = math.sqrt(1 - BETA2**count)
    for index in range(len(weights)):
        slope = gradient[index] * factor + weight_decay * weights[index]
        mean = BETA1 * first[index] + (1 - BETA1) * slope
        square = BETA2 * second[index] + (1 - BETA2) * slope * slope
        move[index] = -rate * mean / (math.sqrt(square) / correction + EPSILON)
        first[index], second[index] = mean, square
    return True


@compiled
def put(weights: Vector, before: Vector, move: Floats, share: float) -> None:
    """Set the weights, (P,), to a share of the way that they are to move from where they were."""
    for index in range(len(weights)):
        moved = wide(before[index]) + share * move[index]
        weights[index] = min(max(moved, -MAX_WEIGHT), MAX_WEIGHT)
