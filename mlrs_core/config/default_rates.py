"""The default learning rates: what an optimizer's users start from, for a run that names none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlrs_core.compiled import clip, compiled
from mlrs_core.config.run import Optimizer

MOMENTUM_FAMILY = (Optimizer.MOMENTUM, Optimizer.NESTEROV)
"""Update rules that start at `DEFAULT_LR` times (1 - momentum)."""
ADAM_FAMILY = (Optimizer.ADAM, Optimizer.ADAMW, Optimizer.OTHER)
"""Update rules that start at `DEFAULT_ADAM_LR`; all others start at `DEFAULT_LR`."""
DEFAULT_LR, DEFAULT_ADAM_LR, DEFAULT_MOMENTUM = 0.1, 1e-3, 0.9
"""What users of SGD and of Adam start from, and the momentum where it is not known."""
MAX_MOMENTUM = 0.999
"""Beyond it, a larger momentum lowers the LR no further."""
IS_MOMENTUM = np.array([optimizer in MOMENTUM_FAMILY for optimizer in Optimizer])
IS_ADAM = np.array([optimizer in ADAM_FAMILY for optimizer in Optimizer])
"""Which update rule is of which family, by its number."""


@compiled
def default_lr(run: Any) -> float:
    """Return the default learning rate of a run, a record of `RUN`.

    0.1 for SGD, and where no optimizer was given; 0.1 * (1 - momentum) for momentum and Nesterov, so
    0.01 at a momentum of 0.9; 1e-3 for Adam, AdamW and any other rule. These are for ever: runs are stored
    without them.
    """
    if IS_ADAM[run.optimizer]:
        return DEFAULT_ADAM_LR
    if not IS_MOMENTUM[run.optimizer]:
        return DEFAULT_LR
    momentum = DEFAULT_MOMENTUM if math.isnan(run.momentum) else run.momentum
    return DEFAULT_LR * (1 - clip(momentum, 0.0, MAX_MOMENTUM))
