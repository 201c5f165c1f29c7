"""Where optimizers usually start: the learning rate of a run that names none."""

from __future__ import annotations

import numpy as np

from mlrs_core.config import Optimizer
from mlrs_core.policy import Floats, RunColumns

MOMENTUM_FAMILY = (Optimizer.MOMENTUM, Optimizer.NESTEROV)
"""Update rules that start at `USUAL_LR` times (1 - momentum)."""
ADAM_FAMILY = (Optimizer.ADAM, Optimizer.ADAMW, Optimizer.OTHER)
"""Update rules that start at `USUAL_ADAM_LR`; all others start at `USUAL_LR`."""
USUAL_LR, USUAL_ADAM_LR, USUAL_MOMENTUM = 0.1, 1e-3, 0.9
"""Where SGD and Adam usually start, and the momentum where it is not known."""
MAX_MOMENTUM = 0.999
"""Beyond it, a larger momentum lowers the LR no further."""
IS_MOMENTUM = np.array([optimizer in MOMENTUM_FAMILY for optimizer in Optimizer])
IS_ADAM = np.array([optimizer in ADAM_FAMILY for optimizer in Optimizer])
"""Which update rule is of which family, by its number."""


def usual_lrs(runs: RunColumns) -> Floats:
    """Return where each run's optimizer usually starts, (n,).

    0.1 for SGD, and where no optimizer was given; 0.1 * (1 - momentum) for momentum and Nesterov, so
    0.01 at the usual 0.9; 1e-3 for Adam, AdamW and any other rule. These are for ever: runs are stored
    without them.
    """
    momentum = np.clip(np.where(np.isnan(runs.momentum), USUAL_MOMENTUM, runs.momentum), 0, MAX_MOMENTUM)
    usual = np.where(IS_MOMENTUM[runs.optimizer], USUAL_LR * (1 - momentum), USUAL_LR)
    return np.where(IS_ADAM[runs.optimizer], USUAL_ADAM_LR, usual)
