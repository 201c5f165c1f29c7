"""What the tail kernel does with observations before it looks: steps 1 to 4 of the spec, and when looks come.

`memory` is what one run remembers, (EXTRAS,) float32: what is written to it is rounded as it is kept. `fixed`
are the model's constants, a record of `CONSTANTS`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mlrs_core.compiled import clip, compiled, wide
from mlrs_core.config.default_rates import default_lr
from mlrs_core.networks.tail.constants import SCALES
from mlrs_core.networks.tail.state_layout import (
    AGE,
    ALIGNED_AGE,
    ALIGNED_COUNT,
    ALONG,
    ALONG_SLOW,
    ALONG_SUM,
    BEST,
    COUNT,
    CROSS,
    CROSS_SLOW,
    CROSS_SUM,
    MODE,
    REF,
    SUM,
    UPDATE,
    UPDATE_AGE,
    UPDATE_COUNT,
    UPDATE_SLOW,
    UPDATE_SUM,
    VALID,
    VALID_BEFORE,
    VALID_BEST,
    VALID_BEST_SHARE,
    VALID_COUNT,
    VALID_SHARE,
    VARIANCE,
)
from mlrs_core.policy import COLUMNS, Floats

Memory = npt.NDArray[np.float32]
UPDATE2, GRADIENT2, GRADIENT_ALONG, GRADIENT_CROSS, RELATIVE, VALIDATION = (
    COLUMNS.index(name)
    for name in (
        "update_norm2",
        "grad_norm2",
        "grad_dot_update",
        "grad_dot_previous_update",
        "log_relative_update",
        "validation_loss",
    )
)
"""Where in what comes with an observation the numbers are that the network reads."""


@compiled
def first_lr(run: Any) -> float:
    """Return the learning rate that the schedule of a run multiplies."""
    given: float = run.initial_lr
    return default_lr(run) if math.isnan(given) else given


@compiled
def effective_horizon(step: int, run: Any, fixed: Any) -> int:
    """Return the horizon; an unknown one counts as twice the steps so far."""
    unknown: int = max(2 * (step + 1), fixed.unknown_horizon)
    return run.horizon if run.horizon > 0 else unknown


@compiled
def schedule(step: int, run: Any, fixed: Any) -> float:
    """Return the schedule that the network corrects; from the horizon on, as it was before it."""
    horizon = float(effective_horizon(step, run, fixed))
    at = min(float(step), horizon - 1.0)
    rise: float = min((at + 1.0) / max(fixed.warmup * horizon, 1.0), 1.0)
    if run.horizon <= 0:
        return rise
    left: float = min((horizon - at) / (fixed.cooldown * horizon), 1.0)
    return rise * (left / (1.0 + math.sqrt(1.0 - left)))


@compiled
def level(loss: float, memory: Memory, fixed: Any) -> float:
    """Return a loss on the scale of x."""
    ref = wide(memory[REF])
    most = fixed.max_level * ref
    u = clip(loss, -most, most) / ref
    if memory[MODE] != 1:
        return math.asinh(u)
    return math.log(max(u, 0.0) + fixed.floor) - math.asinh(max(-u, 0.0))


@compiled
def take_in(memory: Memory, loss: float, step: int, run: Any, fixed: Any) -> bool:
    """Add a loss up; return whether it is time for a look."""
    first = memory[MODE] == 0
    if first:
        unknown = math.isnan(run.log_classes)
        memory[REF] = clip(abs(loss), fixed.min_ref, fixed.max_ref) if unknown else run.log_classes
        memory[MODE] = 1.0 if loss > 0 else 2.0
    x = level(loss, memory, fixed)
    if first:
        memory[:SCALES] = x
    memory[SUM] = wide(memory[SUM]) + x
    memory[COUNT] += 1
    spacing = min(step // fixed.first_looks, -(-effective_horizon(step, run, fixed) // fixed.looks))
    due = memory[COUNT] >= spacing or memory[AGE] == 0
    if x > wide(memory[0]) + fixed.jump:
        memory[SUM], memory[COUNT] = x, 1.0
        return True
    return bool(due)


@compiled
def take_in_signals(memory: Memory, signals: Floats) -> None:
    """Add the signals of a step up, (len(COLUMNS),)."""
    update2, gradient2, relative = signals[UPDATE2], signals[GRADIENT2], signals[RELATIVE]
    along, cross = signals[GRADIENT_ALONG], signals[GRADIENT_CROSS]
    if math.isfinite(relative):
        memory[UPDATE_SUM] = wide(memory[UPDATE_SUM]) + clip(relative, -30.0, 10.0)
        memory[UPDATE_COUNT] += 1
    if update2 >= 0.0 and gradient2 >= 0.0 and math.isfinite(along) and math.isfinite(cross):
        scale = math.sqrt(update2) * math.sqrt(gradient2)
        if math.isfinite(scale):
            scale += 1e-30
            memory[CROSS_SUM] = wide(memory[CROSS_SUM]) + clip(cross / scale, -3.0, 3.0)
            memory[ALONG_SUM] = wide(memory[ALONG_SUM]) + clip(along / scale, -1.0, 1.0)
            memory[ALIGNED_COUNT] += 1


@compiled
def take_in_validation(memory: Memory, loss: float, step: int, run: Any, fixed: Any) -> None:
    """Note a finite validation loss; not before the first training loss."""
    x, share = np.float32(level(loss, memory, fixed)), step / float(effective_horizon(step, run, fixed))
    first = memory[VALID_COUNT] == 0
    memory[VALID_BEFORE] = x if first else memory[VALID]
    if first or x < memory[VALID_BEST]:
        memory[VALID_BEST], memory[VALID_BEST_SHARE] = x, share
    memory[VALID], memory[VALID_SHARE] = x, share
    memory[VALID_COUNT] = min(memory[VALID_COUNT] + 1, 2)


@compiled
def remember(memory: Memory, fixed: Any) -> float:
    """Take in what came since the last look; return the mean of its losses."""
    mean = wide(memory[SUM]) / wide(memory[COUNT])
    memory[AGE] += 1
    age = wide(memory[AGE])
    first = age == 1
    variance = fixed.first_variance if first else wide(memory[VARIANCE])
    change = (mean - wide(memory[1])) ** 2 - variance
    memory[VARIANCE] = variance + max(1 / (age + 1), fixed.variance_rate) * change
    for scale in range(SCALES):
        average = wide(memory[scale])
        memory[scale] = average + max(1 / age, fixed.rates[scale]) * (mean - average)
    if first or memory[2] < memory[BEST]:
        memory[BEST] = memory[2]
    memory[SUM] = memory[COUNT] = 0.0
    if memory[UPDATE_COUNT] > 0:
        memory[UPDATE_AGE] += 1
        _average(memory, UPDATE_SUM, UPDATE_COUNT, UPDATE_AGE, UPDATE, UPDATE_SLOW, fixed)
        memory[UPDATE_COUNT] = 0.0
    if memory[ALIGNED_COUNT] > 0:
        memory[ALIGNED_AGE] += 1
        _average(memory, CROSS_SUM, ALIGNED_COUNT, ALIGNED_AGE, CROSS, CROSS_SLOW, fixed)
        _average(memory, ALONG_SUM, ALIGNED_COUNT, ALIGNED_AGE, ALONG, ALONG_SLOW, fixed)
        memory[ALIGNED_COUNT] = 0.0
    return mean


@compiled
def _average(memory: Memory, total: int, counted: int, aged: int, fast: int, slow: int, fixed: Any) -> None:
    """Move two averages of a signal towards its mean since the last look; clear its sum."""
    mean, since = wide(memory[total]) / wide(memory[counted]), 1 / wide(memory[aged])
    before = wide(memory[fast])
    memory[fast] = before + max(since, fixed.signal_rate) * (mean - before)
    before = wide(memory[slow])
    memory[slow] = before + max(since, fixed.slow_signal_rate) * (mean - before)
    memory[total] = 0.0
