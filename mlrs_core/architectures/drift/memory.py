"""What the drift kernel does with a loss before the network looks: steps 1 and 2 of the spec, and ticks.

`memory` is what one run remembers, (EXTRAS,) float32: what is written to it is rounded as it is kept.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mlrs_core.architectures.drift.rows import AGE, BEST, COUNT, HIGH, LOW, MODE, REF, SUM, VARIANCE
from mlrs_core.architectures.drift.spec import (
    FIRST_TICKS,
    FIRST_VARIANCE,
    FLOOR,
    MAX_LEVEL,
    MAX_REF,
    MAX_START,
    MIN_REF,
    SCALES,
    TICKS,
    TIME_CONSTANTS,
    VARIANCE_RATE,
    WARMUP,
)
from mlrs_core.compiled import clip, compiled, wide

Memory = npt.NDArray[np.float32]
_LOG_WARMUP = math.log(WARMUP)
_FAST, _SLOW = TIME_CONSTANTS
_RATES = 1 - np.exp(-1 / (_FAST * (_SLOW / _FAST) ** (np.arange(SCALES) / (SCALES - 1))))


@compiled
def first_drift(run: Any, usual: float) -> float:
    """Return the log of the initial LR over the usual one, 0 where not given."""
    given = usual if math.isnan(run.initial_lr) else max(run.initial_lr, 1e-30)
    return float(np.float32(clip(math.log(given / usual), -MAX_START, MAX_START)))


@compiled
def take_in(memory: Memory, loss: float, run: Any, usual: float) -> float:
    """Add a loss up; return it on the scale of x."""
    first = memory[MODE] == 0
    if first:
        memory[REF] = clip(abs(loss), MIN_REF, MAX_REF) if math.isnan(run.log_classes) else run.log_classes
        memory[MODE] = 1.0 if loss > 0 else 2.0
        memory[HIGH] = first_drift(run, usual) - _LOG_WARMUP
        memory[LOW] = 0.0
    ref = wide(memory[REF])
    most = MAX_LEVEL * ref
    u = clip(loss, -most, most) / ref
    positive = math.log(max(u, 0.0) + FLOOR) - math.asinh(max(-u, 0.0))
    x = positive if memory[MODE] == 1 else math.asinh(u)
    if first:
        memory[:SCALES] = x
    memory[SUM] = wide(memory[SUM]) + x
    memory[COUNT] += 1
    return x


@compiled
def effective_horizon(step: int, run: Any) -> int:
    """Return the horizon; an unknown one counts as twice the steps so far."""
    return run.horizon if run.horizon > 0 else max(2 * (step + 1), 100)


@compiled
def is_due(memory: Memory, step: int, run: Any) -> bool:
    """Return whether it is time for a tick: after the first loss, and then as the spec says."""
    spacing = min(step // FIRST_TICKS, -(-effective_horizon(step, run) // TICKS))
    return bool(memory[COUNT] >= spacing or memory[AGE] == 0)


@compiled
def jumps(memory: Memory, x: float, limit: float) -> bool:
    """Return whether a loss is this far above its fastest average; it then is all that the tick sees."""
    if x <= wide(memory[0]) + limit:
        return False
    memory[SUM], memory[COUNT] = x, 1.0
    return True


@compiled
def remember(memory: Memory) -> float:
    """Take in the losses since the last tick; return their mean."""
    mean = wide(memory[SUM]) / wide(memory[COUNT])
    memory[AGE] += 1
    age = wide(memory[AGE])
    first = age == 1
    variance = FIRST_VARIANCE if first else wide(memory[VARIANCE])
    change = (mean - wide(memory[1])) ** 2 - variance
    memory[VARIANCE] = variance + max(1 / (age + 1), VARIANCE_RATE) * change
    for scale in range(SCALES):
        average = wide(memory[scale])
        memory[scale] = average + max(1 / age, _RATES[scale]) * (mean - average)
    if first or memory[2] < memory[BEST]:
        memory[BEST] = memory[2]
    memory[SUM] = memory[COUNT] = 0.0
    return mean
