"""What every schedule has: the base LR of a run, and its warmup."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlrs_core.compiled import compiled
from mlrs_core.config.default_rates import default_lr
from mlrs_core.config.schedule import MAX_BASE_LR, MIN_BASE_LR
from mlrs_core.policy import Floats, RunColumns, Steps


@compiled
def _default_lrs(table: Any, lrs: Floats) -> None:
    for row in range(len(table)):
        lrs[row] = default_lr(table[row])


def default_lrs(runs: RunColumns) -> Floats:
    """Return the default learning rate of each run, (n,)."""
    lrs = np.empty(len(runs))
    _default_lrs(runs.table(), lrs)
    return lrs


def base_lrs(runs: RunColumns) -> Floats:
    """Return the base LR of each run, (n,): its own, else its `initial_lr`, else the default one."""
    initial = np.clip(runs.initial_lr, MIN_BASE_LR, MAX_BASE_LR)
    unset = np.where(np.isnan(initial), default_lrs(runs), initial)
    return np.where(np.isnan(runs.base_lr), unset, runs.base_lr)


def warmup_ramp(steps: Steps, warmup: Steps) -> Floats:
    """Return the share of the LR that the linear warmup lets through, (n,) in (0, 1].

    min(1, (t + 1) / (W + 1)): no step has an LR of 0, and step W is the first with all of it. Goyal et
    al. 2017 (arXiv 1706.02677, section 2.2), and `LinearLR(start_factor=1 / (W + 1), total_iters=W)`.
    """
    ramp: Floats = np.minimum((steps + 1) / (warmup + 1), 1.0)
    return ramp
