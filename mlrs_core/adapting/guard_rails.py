"""Guard rails: what is usual of a run's alignments and losses, and what is not.

Everything is in units of the run's own past, so that losses of any scale are treated alike.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mlrs_core.adapting.state_layout import (
    ADAPTED,
    BAD,
    FAST,
    FIRST,
    FRESH,
    GOOD_MEAN,
    GOOD_WIDTH,
    PENDING,
    RETURNS,
    SCALARS,
    SEEN,
    SINCE,
    SIZE,
    SIZED,
    SLOW,
    WIDTH,
)
from mlrs_core.compiled import clip, compiled, wide

Vector = npt.NDArray[np.float32]
SIZE_RATE = 0.05
"""How fast the usual size of alignments follows, an update; faster at first."""
AS_THEY_ARE = 5
"""So many alignments count as they are before any is clipped."""
FAST_RATE, SLOW_RATE = 0.25, 0.02
"""How fast the averages of the loss follow, a step; faster at first."""
MAX_LEVEL = 1e30
"""Losses count within plus and minus this."""
FLOOR, FIRST_FLOOR = 0.02, 1e-3
"""The usual deviation is at least this share of the slow average, and this of the first loss."""
FEW = 3.0
"""Times n**-1.5 this is added to the first share, where only n losses have been seen."""
SPIKE = 2.0
"""A loss counts within so many blow-ups of the slow average: one alone is no blow-up."""
CONFIRM = 20
"""Finite losses without a blow-up after which weights are good."""
CALM = 0.5
"""The share of a blow-up within which they are."""
MAX_BAD = 3
"""So many losses in a row that are not finite are a blow-up."""


@compiled
def clipped(scalars: Vector, alignment: float, limit: float) -> float:
    """Return an alignment within so many times the usual size, and take that in."""
    size, count = wide(scalars[SIZE]), wide(scalars[SIZED])
    if count >= AS_THEY_ARE and size > 0:
        alignment = clip(alignment, -limit * size, limit * size)
    scalars[SIZED] += 1
    rate = max(1 / (count + 1), SIZE_RATE)
    scalars[SIZE] = math.sqrt((1 - rate) * size * size + rate * alignment * alignment)
    return alignment


@compiled
def watch(scalars: Vector, network: Vector, loss: float, blow_up: float) -> None:
    """Take in the loss of a step, of any value, before the step is made; put good weights back if need be.

    Args:
        scalars: of the run; changed.
        network: likewise; touched only if it has moved.
        loss: any value.
        blow_up: how many usual deviations make one.
    """
    scalars[ADAPTED] = scalars[FRESH] = 0.0
    if not math.isfinite(loss):
        scalars[BAD] += 1
        if scalars[PENDING] == 1 and scalars[BAD] >= MAX_BAD:
            _return(scalars, network)
        return
    scalars[BAD] = 0.0
    _average(scalars, loss, blow_up)
    if scalars[PENDING] == 0:
        return
    scalars[SINCE] += 1
    far = (wide(scalars[FAST]) - wide(scalars[GOOD_MEAN])) / wide(scalars[GOOD_WIDTH])
    if far > blow_up:
        _return(scalars, network)
        _average(scalars, loss, blow_up)
    elif scalars[SINCE] >= CONFIRM and far <= CALM * blow_up:
        size = len(network) // 4
        network[3 * size :] = network[:size]
        scalars[PENDING] = 0.0


@compiled
def begin_trial(scalars: Vector) -> None:
    """Note that weights move: until they have proved good, blow-ups are measured from here."""
    if scalars[PENDING] == 1:
        return
    scalars[PENDING], scalars[SINCE] = 1.0, 0.0
    scalars[GOOD_MEAN], scalars[GOOD_WIDTH] = scalars[SLOW], _width(scalars)


@compiled
def _return(scalars: Vector, network: Vector) -> None:
    """Put the last good weights back, and begin anew with moments and averages."""
    size = len(network) // 4
    network[:size] = network[3 * size :]
    network[size : 3 * size] = 0.0
    scalars[SCALARS:] = 0.0
    scalars[RETURNS] += 1
    scalars[PENDING] = scalars[SEEN] = 0.0


@compiled
def _average(scalars: Vector, loss: float, blow_up: float) -> None:
    """Take a finite loss into the averages."""
    level = clip(loss, -MAX_LEVEL, MAX_LEVEL)
    seen = wide(scalars[SEEN])
    if seen == 0:
        scalars[FAST] = scalars[SLOW] = level
        scalars[WIDTH] = 0.0
        if scalars[FIRST] == 0:
            scalars[FIRST] = abs(level)
    else:
        slow, most = wide(scalars[SLOW]), SPIKE * blow_up * _width(scalars)
        level = clip(clip(level, slow - most, slow + most), -MAX_LEVEL, MAX_LEVEL)
        width = wide(scalars[WIDTH])
        scalars[WIDTH] = width + max(1 / seen, SLOW_RATE) * (abs(level - slow) - width)
        scalars[SLOW] = slow + max(1 / (seen + 1), SLOW_RATE) * (level - slow)
        fast = wide(scalars[FAST])
        scalars[FAST] = fast + max(1 / (seen + 1), FAST_RATE) * (level - fast)
    scalars[SEEN] += 1


@compiled
def _width(scalars: Vector) -> float:
    """Return the usual deviation of the loss; generous while few have been seen."""
    seen = max(wide(scalars[SEEN]), 1.0)
    least = (FLOOR + FEW / (seen * math.sqrt(seen))) * abs(wide(scalars[SLOW]))
    least += FIRST_FLOOR * wide(scalars[FIRST])
    return max(wide(scalars[WIDTH]), least, 1e-30)
