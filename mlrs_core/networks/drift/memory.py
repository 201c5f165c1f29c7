"""What the drift kernel does with a loss before the network looks: steps 1 and 2 of the spec, and ticks.

`memory` is what one run remembers, (EXTRAS,) float32: what is written to it is rounded as it is kept.
`fixed` are the model's constants, a record of `CONSTANTS`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mlrs_core.compiled import clip, compiled, wide
from mlrs_core.config.default_rates import IS_ADAM, IS_MOMENTUM
from mlrs_core.networks.drift.constants import SCALES
from mlrs_core.networks.drift.state_layout import AGE, BEST, COUNT, HIGH, LOW, MODE, REF, SUM, VARIANCE

Memory = npt.NDArray[np.float32]


@compiled
def default_lr(run: Any, fixed: Any) -> float:
    """Return where the optimizer of a run starts by default, as the model has it."""
    default: float = fixed.default_adam_lr if IS_ADAM[run.optimizer] else fixed.default_lr
    if IS_MOMENTUM[run.optimizer]:
        momentum = fixed.default_momentum if math.isnan(run.momentum) else run.momentum
        default *= 1 - clip(momentum, 0.0, fixed.max_momentum)
    return default


@compiled
def first_drift(run: Any, default: float, fixed: Any) -> float:
    """Return the log of the initial LR over the default one, 0 where not given."""
    given = default if math.isnan(run.initial_lr) else max(run.initial_lr, 1e-30)
    return float(np.float32(clip(math.log(given / default), -fixed.max_start, fixed.max_start)))


@compiled
def take_in(memory: Memory, loss: float, run: Any, default: float, fixed: Any) -> float:
    """Add a loss up; return it on the scale of x."""
    first = memory[MODE] == 0
    if first:
        unknown = math.isnan(run.log_classes)
        memory[REF] = clip(abs(loss), fixed.min_ref, fixed.max_ref) if unknown else run.log_classes
        memory[MODE] = 1.0 if loss > 0 else 2.0
        memory[HIGH] = first_drift(run, default, fixed) - fixed.log_warmup
        memory[LOW] = 0.0
    ref = wide(memory[REF])
    most = fixed.max_level * ref
    u = clip(loss, -most, most) / ref
    positive = math.log(max(u, 0.0) + fixed.floor) - math.asinh(max(-u, 0.0))
    x = positive if memory[MODE] == 1 else math.asinh(u)
    if first:
        memory[:SCALES] = x
    memory[SUM] = wide(memory[SUM]) + x
    memory[COUNT] += 1
    return x


@compiled
def effective_horizon(step: int, run: Any, fixed: Any) -> int:
    """Return the horizon; an unknown one counts as twice the steps so far."""
    unknown: int = max(2 * (step + 1), fixed.unknown_horizon)
    return run.horizon if run.horizon > 0 else unknown


@compiled
def is_due(memory: Memory, step: int, run: Any, fixed: Any) -> bool:
    """Return whether it is time for a tick: after the first loss, and then as the spec says."""
    spacing = min(step // fixed.first_ticks, -(-effective_horizon(step, run, fixed) // fixed.ticks))
    return bool(memory[COUNT] >= spacing or memory[AGE] == 0)


@compiled
def jumps(memory: Memory, x: float, limit: float) -> bool:
    """Return whether a loss is this far above its fastest average; it then is all that the tick sees."""
    if x <= wide(memory[0]) + limit:
        return False
    memory[SUM], memory[COUNT] = x, 1.0
    return True


@compiled
def remember(memory: Memory, fixed: Any) -> float:
    """Take in the losses since the last tick; return their mean."""
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
    return mean
