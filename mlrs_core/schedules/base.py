"""What every schedule has: the base LR of a run, and its warmup."""

from __future__ import annotations

import numpy as np

from mlrs_core.architectures.drift.spec import ADAM_FAMILY, MOMENTUM_FAMILY
from mlrs_core.policy import Floats, RunColumns, Steps
from mlrs_core.schedules.spec import MAX_BASE_LR

USUAL_LR, USUAL_ADAM_LR, USUAL_MOMENTUM = 0.1, 1e-3, 0.9
"""Where SGD and Adam usually start, and the momentum where it is not known."""


def usual_lrs(runs: RunColumns) -> Floats:
    """Return where each run's optimizer usually starts, (n,).

    0.1 for SGD, and where no optimizer was given; 0.1 * (1 - momentum) for momentum and Nesterov, so
    0.01 at the usual 0.9; 1e-3 for Adam, AdamW and any other rule. As the drift architecture does.
    """
    momentum = np.clip(np.where(np.isnan(runs.momentum), USUAL_MOMENTUM, runs.momentum), 0, 0.999)
    usual = np.where(np.isin(runs.optimizer, MOMENTUM_FAMILY), USUAL_LR * (1 - momentum), USUAL_LR)
    return np.where(np.isin(runs.optimizer, ADAM_FAMILY), USUAL_ADAM_LR, usual)


def base_lrs(runs: RunColumns) -> Floats:
    """Return the base LR of each run, (n,): its own, else its `initial_lr`, else the usual one."""
    initial = np.minimum(runs.initial_lr, MAX_BASE_LR)
    unset = np.where(np.isnan(initial), usual_lrs(runs), initial)
    return np.where(np.isnan(runs.base_lr), unset, runs.base_lr)


def warmup_ramp(steps: Steps, warmup: Steps) -> Floats:
    """Return the share of the LR that the linear warmup lets through, (n,) in (0, 1].

    min(1, (t + 1) / (W + 1)): no step has an LR of 0, and step W is the first with all of it. Goyal et
    al. 2017 (arXiv 1706.02677, section 2.2), and `LinearLR(start_factor=1 / (W + 1), total_iters=W)`.
    """
    ramp: Floats = np.minimum((steps + 1) / (warmup + 1), 1.0)
    return ramp
