"""What the cell of the drift kernel sees at a tick: step 3 of the spec, in feature version 1.

The formulas, with the numbers in them, are the version's: they never change. `fixed` are the model's
constants, a record of `CONSTANTS`.
"""

from __future__ import annotations

import math
from typing import Any

from mlrs_core.compiled import clip, compiled, wide
from mlrs_core.config.default_rates import IS_ADAM, IS_MOMENTUM
from mlrs_core.networks.drift.constants import FEATURES, LOSS_FEATURES, SCALES, SOFT_STEPS
from mlrs_core.networks.drift.memory import Memory, effective_horizon, first_drift
from mlrs_core.networks.drift.state_layout import BEST, HIGH, LOW, VARIANCE
from mlrs_core.policy import Floats


@compiled
def look(
    memory: Memory, mean: float, step: int, run: Any, default: float, fixed: Any, features: Floats
) -> None:
    """Write the features that the network sees, (FEATURES,), and 0 for others."""
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
    offset = _look_around(step, run, fixed, features, LOSS_FEATURES)
    _look_at_itself(memory, run, default, fixed, features, offset)
    for feature in range(FEATURES):
        features[feature] *= fixed.mask[feature]


@compiled
def _look_around(step: int, run: Any, fixed: Any, features: Floats, offset: int) -> int:
    """Write the features of the horizon from an offset on; return the offset after them."""
    horizon = float(effective_horizon(step, run, fixed))
    known = 1.0 if run.horizon > 0 else 0.0
    for soft in range(SOFT_STEPS):
        features[offset + soft] = known * math.tanh(10 * (step / horizon - fixed.soft_steps[soft]))
    offset += SOFT_STEPS
    features[offset] = known
    features[offset + 1] = math.tanh(0.7 * math.log10(horizon / 500))
    features[offset + 2] = math.tanh(0.7 * math.log10((step + 1.0) / 30))
    return offset + 3


@compiled
def _look_at_itself(
    memory: Memory, run: Any, default: float, fixed: Any, features: Floats, offset: int
) -> None:
    """Write the features of the learning rate and the config from an offset on."""
    drift = wide(memory[HIGH]) + wide(memory[LOW])
    features[offset] = 0.3 * drift
    features[offset + 1] = 0.3 * (drift - first_drift(run, default, fixed))
    features[offset + 2] = 1.0 if IS_MOMENTUM[run.optimizer] else 0.0
    features[offset + 3] = 1.0 if IS_ADAM[run.optimizer] else 0.0
    features[offset + 4] = 0.0 if math.isnan(run.log_classes) else 1.0
