"""The transfer rule: which snapshot of a model advises which step (Shu et al., section 4.2)."""

from __future__ import annotations

import numpy as np

from mlrs_core.policy import Steps


def choose_snapshots(steps: Steps, horizon: Steps, named: Steps, count: int) -> Steps:
    """Return the snapshot of each run at its step.

    With a horizon, each of the `count` snapshots has one part of it: snapshot k while
    `step < (k + 1) * (horizon // count)`, the last one from there on. Without one, the run stays on
    the snapshot it names, by default the middle one.

    Args:
        steps: (n,) int64.
        horizon: (n,) int64, -1 where unknown.
        named: (n,) int64, -1 where not given.
        count: how many snapshots the model holds.

    Returns:
        (n,) int64, each 0 to count - 1.
    """
    part = horizon // count
    by_step = np.where(part > 0, steps // np.maximum(part, 1), count - 1)
    stay = np.where(named >= 0, named, count // 2)
    return np.minimum(np.where(horizon >= 0, by_step, stay), count - 1)
