"""Where optimizers usually start: the learning rate of a run that names none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlrs_core.compiled import clip, compiled
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


@compiled
def usual_lr(run: Any) -> float:
    """Return where the optimizer of a run, a record of `RUN`, usually starts.

    0.1 for SGD, and where no optimizer was given; 0.1 * (1 - momentum) for momentum and Nesterov, so
    0.01 at the usual 0.9; 1e-3 for Adam, AdamW and any other rule. These are for ever: runs are stored
    without them.
    """
    if IS_ADAM[run.optimizer]:
        return USUAL_ADAM_LR
    if not IS_MOMENTUM[run.optimizer]:
        return USUAL_LR
    momentum = USUAL_MOMENTUM if math.isnan(run.momentum) else run.momentum
    return USUAL_LR * (1 - clip(momentum, 0.0, MAX_MOMENTUM))


@compiled
def _usual_lrs(table: Any, lrs: Floats) -> None:
    for row in range(len(table)):
        lrs[row] = usual_lr(table[row])


def usual_lrs(runs: RunColumns) -> Floats:
    """Return where each run's optimizer usually starts, (n,)."""
    lrs = np.empty(len(runs))
    _usual_lrs(runs.table(), lrs)
    return lrs
