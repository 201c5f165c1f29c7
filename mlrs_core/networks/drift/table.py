"""A model's constants as the kernel reads them: one record, so that all models share one machine code."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from mlrs_core.networks.drift.constants import FEATURES, SCALES, SOFT_STEPS, rates_of
from mlrs_core.networks.drift.spec import DriftSpec

_WHOLE = ("ticks", "first_ticks", "unknown_horizon")
_REAL = (
    *("jump", "floor", "max_level", "min_ref", "max_ref", "variance_rate", "first_variance"),
    *("reach", "gate_slope", "gate_start", "forget_bias", "rise", "fall", "log_warmup"),
    *("min_drift", "max_drift", "max_start"),
    *("default_lr", "default_adam_lr", "default_momentum", "max_momentum"),
)
CONSTANTS = np.dtype(
    [
        *((name, np.int64) for name in _WHOLE),
        *((name, np.float64) for name in _REAL),
        ("rates", np.float64, (SCALES,)),
        ("soft_steps", np.float64, (SOFT_STEPS,)),
        ("mask", np.float64, (FEATURES,)),
    ]
)
"""The fields of `DriftConstants`, what follows from them, and 1 for each feature that is seen, else 0."""
ConstantTable = npt.NDArray[np.void]
"""The constants of a model, (1,), a `CONSTANTS` record."""


def constants_table(spec: DriftSpec) -> ConstantTable:
    """Return the constants of a model."""
    table = np.zeros(1, CONSTANTS)
    values = {**asdict(spec.constants), "log_warmup": math.log(spec.constants.warmup)}
    if spec.inputs == "progress":  # no loss makes a tick
        values["jump"] = math.inf
    values |= {"rates": rates_of(spec.constants), "mask": spec.feature_mask()}
    for name in CONSTANTS.fields or ():
        table[name] = values[name]
    return table
