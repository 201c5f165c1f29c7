"""Guard rails: which alignments and losses are typical of a run, and which are not.

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
from mlrs_core.compiled import clip, compiled, copy_to, wide

Vector = npt.NDArray[np.float32]
SIZE_RATE = 0.05
"""The rate, per update, at which the typical size of alignments follows them; it is higher at first."""
AS_THEY_ARE = 5
"""This many alignments are taken unclipped before any is clipped."""
FAST_RATE, SLOW_RATE = 0.25, 0.02
"""The rates, per step, at which the averages of the loss follow it; they are higher at first."""
MAX_LEVEL = 1e30
"""Losses count within plus and minus this."""
FLOOR, FIRST_FLOOR = 0.02, 1e-3
"""The least typical deviation: a share of the slow average, plus a share of the first loss."""
FEW = 3.0
"""This times n**-1.5 is added to `FLOOR` while only n losses have been seen."""
SPIKE = 2.0
"""A loss counts as at most this many blow-ups from the slow average, so that one loss alone is no blow-up."""
CONFIRM = 20
"""Finite losses without a blow-up after which weights are good."""
CALM = 0.5
"""Weights are good if the loss is within this share of a blow-up."""
MAX_BAD = 3
"""This many losses in a row that are not finite are a blow-up."""


@compiled
def clipped(scalars: Vector, alignment: float, limit: float) -> float:
    """Return an alignment clipped to `limit` times the typical size, and update that size with it."""
    size, count = wide(scalars[SIZE]), wide(scalars[SIZED])
    if count >= AS_THEY_ARE and size > 0:
        alignment = clip(alignment, -limit * size, limit * size)
    scalars[SIZED] += 1
    rate = max(1 / (count + 1), SIZE_RATE)
    scalars[SIZE] = math.sqrt((1 - rate) * size * size + rate * alignment * alignment)
    return alignment


@compiled
def watch(scalars: Vector, network: Vector, loss: float, blow_up: float) -> None:
    """Update the averages with the loss of a step, before it is made; restore good weights after a blow-up.

    Args:
        scalars: the numbers of the run (`state_layout`); changed.
        network: the network of the run, (network_size,); changed only if it has been adapted.
        loss: any value.
        blow_up: how many typical deviations make a blow-up.
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
        copy_to(network[3 * size :], network[:size])
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
    copy_to(network[:size], network[3 * size :])
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
    """Return the typical deviation of the loss; it is generous while few losses have been seen."""
    seen = max(wide(scalars[SEEN]), 1.0)
    least = (FLOOR + FEW / (seen * math.sqrt(seen))) * abs(wide(scalars[SLOW]))
    least += FIRST_FLOOR * wide(scalars[FIRST])
    return max(wide(scalars[WIDTH]), least, 1e-30)
