"""One step of advice: the network's step, and the rules around it that no network may bend."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mlrs_core.policy import Floats, Policy, RunColumns, States, Steps


def advise(
    policy: Policy,
    states: States,
    steps: Steps,
    losses: Floats,
    last_lrs: Floats,
    runs: RunColumns,
) -> tuple[Floats, States, npt.NDArray[np.bool_]]:
    """Advise n runs for one step each.

    A row whose loss is not finite is held: its state does not move and its learning rate is the
    last one. Before any finite loss there is none, and `min_lr` (0 where not given) stands in:
    the gradient of such a loss must not move the weights. All other rows get the policy's
    learning rate within [min_lr, max_lr].

    Args:
        policy: the model.
        states: (n, state_size) float32; not changed.
        steps: (n,) int64.
        losses: (n,) float64; any value.
        last_lrs: (n,) float64, NaN for a run that has no advice yet.
        runs: the configs of the n runs.

    Returns:
        Learning rates, (n,) float64; the new states; and which rows were held, (n,) bool.
    """
    held = ~np.isfinite(losses)
    if not held.any():
        lrs, moved = policy.step(states, steps, losses, runs)
        return np.clip(lrs, runs.min_lr, runs.max_lr), moved, held
    live = ~held
    lrs = np.where(np.isnan(last_lrs), runs.min_lr, last_lrs)
    moved = states.copy()
    if live.any():
        some = runs.take(live)
        fresh, moved[live] = policy.step(states[live], steps[live], losses[live], some)
        lrs[live] = np.clip(fresh, some.min_lr, some.max_lr)
    return lrs, moved, held
