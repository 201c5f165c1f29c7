"""A model's constants as the kernel reads them: one record, so that all models share one machine code."""

from __future__ import annotations

from dataclasses import asdict, fields

import numpy as np
import numpy.typing as npt

from mlrs_core.networks.tail.constants import SCALES, SOFT_STEPS, TailConstants

_ARRAYS = [("soft_steps", np.float64, (SOFT_STEPS,)), ("rates", np.float64, (SCALES,))]
_NUMBERS = [
    (each.name, np.int64 if type(each.default) is int else np.float64)
    for each in fields(TailConstants)
    if each.name != "soft_steps"
]
CONSTANTS = np.dtype([*_NUMBERS, *_ARRAYS])
"""The fields of `TailConstants`, and its `rates`."""
ConstantTable = npt.NDArray[np.void]
"""The constants of a model, (1,), a `CONSTANTS` record."""


def constants_table(constants: TailConstants) -> ConstantTable:
    """Return the constants of a model."""
    table = np.zeros(1, CONSTANTS)
    for name, value in {**asdict(constants), "rates": constants.rates}.items():
        table[name] = value
    return table
