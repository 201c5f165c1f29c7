"""What the cell of the tail kernel sees at a look: step 5 of the spec.

The formulas, with the numbers in them, never change: stored models were trained on them. `fixed` are the
model's constants, a record of `CONSTANTS`.
"""

from __future__ import annotations

import math
from typing import Any

from mlrs_core.compiled import clip, compiled, wide
from mlrs_core.config.default_rates import IS_ADAM, IS_MOMENTUM, default_lr
from mlrs_core.networks.tail.constants import (
    LOSS_FEATURES,
    OWN_FEATURES,
    PROGRESS_FEATURES,
    SCALES,
    SIGNAL_FEATURES,
    SOFT_STEPS,
)
from mlrs_core.networks.tail.memory import Memory, effective_horizon, first_lr
from mlrs_core.networks.tail.state_layout import (
    ALIGNED_AGE,
    ALONG,
    ALONG_SLOW,
    BEST,
    CROSS,
    CROSS_SLOW,
    GATE,
    HIGH,
    LOW,
    UPDATE,
    UPDATE_AGE,
    UPDATE_SLOW,
    VALID,
    VALID_BEFORE,
    VALID_BEST,
    VALID_BEST_SHARE,
    VALID_COUNT,
    VALID_SHARE,
    VARIANCE,
)
from mlrs_core.policy import Floats

_PROGRESS = LOSS_FEATURES
_OWN = _PROGRESS + PROGRESS_FEATURES
_SIGNALS = _OWN + OWN_FEATURES
_VALIDATION = _SIGNALS + SIGNAL_FEATURES


@compiled
def look(memory: Memory, mean: float, step: int, run: Any, fixed: Any, features: Floats) -> None:
    """Write what the network sees, (FEATURES,)."""
    _losses(memory, mean, features[:_PROGRESS])
    _progress(step, run, fixed, features[_PROGRESS:_OWN])
    _own(memory, run, features[_OWN:_SIGNALS])
    _signals(memory, fixed, features[_SIGNALS:_VALIDATION])
    _validation(memory, step, run, fixed, features[_VALIDATION:])


@compiled
def _losses(memory: Memory, mean: float, features: Floats) -> None:
    noise = math.sqrt(wide(memory[VARIANCE])) + 1e-4
    above = wide(memory[1]) - wide(memory[BEST])
    features[0] = clip(mean, -3.0, 2.0)
    features[1] = 0.2 * clip(mean, -10.0, 5.0)
    for scale in range(SCALES - 1):
        slope = wide(memory[scale]) - wide(memory[scale + 1])
        features[2 + scale] = 3 * clip(slope, -1.0, 1.0)
        features[1 + SCALES + scale] = math.tanh(slope / noise)
    features[2 * SCALES] = clip(above, -1.0, 2.0)
    features[2 * SCALES + 1] = math.tanh(above / noise)
    features[2 * SCALES + 2] = 0.5 * math.log(noise) + 1


@compiled
def _progress(step: int, run: Any, fixed: Any, features: Floats) -> None:
    horizon = float(effective_horizon(step, run, fixed))
    known = 1.0 if run.horizon > 0 else 0.0
    for soft in range(SOFT_STEPS):
        features[soft] = known * math.tanh(10 * (step / horizon - fixed.soft_steps[soft]))
    features[SOFT_STEPS] = known
    features[SOFT_STEPS + 1] = math.tanh(0.7 * math.log10(horizon / 500))
    features[SOFT_STEPS + 2] = math.tanh(0.7 * math.log10((step + 1.0) / 30))


@compiled
def _own(memory: Memory, run: Any, features: Floats) -> None:
    features[0] = 0.3 * (wide(memory[HIGH]) + wide(memory[LOW]))
    features[1] = wide(memory[GATE])
    features[2] = 0.3 * clip(math.log(max(first_lr(run), 1e-30) / default_lr(run)), -14.0, 14.0)
    features[3] = 1.0 if IS_MOMENTUM[run.optimizer] else 0.0
    features[4] = 1.0 if IS_ADAM[run.optimizer] else 0.0
    features[5] = 0.0 if math.isnan(run.log_classes) else 1.0
    features[6] = 0.0 if math.isnan(run.octaves) else 1.0


@compiled
def _signals(memory: Memory, fixed: Any, features: Floats) -> None:
    features[:] = 0.0
    if memory[UPDATE_AGE] > 0:
        update = wide(memory[UPDATE])
        features[0] = 1.0
        features[1] = 0.3 * clip(update - fixed.usual_update, -6.0, 6.0)
        features[2] = clip(update - wide(memory[UPDATE_SLOW]), -2.0, 2.0)
    if memory[ALIGNED_AGE] > 0:
        features[3] = 1.0
        features[4] = _ratio(wide(memory[CROSS]), wide(memory[ALONG]))
        features[5] = _ratio(wide(memory[CROSS_SLOW]), wide(memory[ALONG_SLOW]))
        features[6] = 2 * wide(memory[ALONG_SLOW])
        features[7] = 2 * clip(wide(memory[CROSS_SLOW]), -1.0, 1.0)


@compiled
def _validation(memory: Memory, step: int, run: Any, fixed: Any, features: Floats) -> None:
    features[:] = 0.0
    if memory[VALID_COUNT] == 0:
        return
    share = step / float(effective_horizon(step, run, fixed))
    newest = wide(memory[VALID])
    features[0] = 1.0
    features[1] = 3 * clip(newest - wide(memory[VALID_BEST]), 0.0, 1.0)
    features[2] = 3 * clip(newest - wide(memory[VALID_BEFORE]), -1.0, 1.0)
    features[3] = clip(newest - wide(memory[2]), -2.0, 4.0)
    features[4] = math.tanh(10 * (share - wide(memory[VALID_SHARE])))
    features[5] = math.tanh(5 * (share - wide(memory[VALID_BEST_SHARE])))
    features[6] = 1.0 if memory[VALID_COUNT] > 1 else 0.0


@compiled
def _ratio(part: float, whole: float) -> float:
    """Return part / whole, within -2 and 2; 0 where there is nothing to divide by."""
    return clip(part / (whole + (-1e-6 if whole < 0 else 1e-6)), -2.0, 2.0)
