"""One step of advice: the policy's step, and the rules around it that no policy may bend."""

from __future__ import annotations

import math

import numpy as np

from mlrs_core.compiled import clip, compiled
from mlrs_core.policy import (
    NO_SIGNALS,
    Floats,
    Networks,
    Policy,
    Rows,
    RunColumns,
    RunTable,
    Signals,
    States,
    Steps,
    no_networks,
)


@compiled
def bounded(loss: float, lr: float, last_lr: float, factor: float, min_lr: float, max_lr: float) -> float:
    """Return the learning rate that a loop is advised.

    It is the policy's times the run's factor, within its bounds. Where the loss is not finite the run is
    held: its state has not moved, and its learning rate is the last one. Before any finite loss there is
    none, and `min_lr` (0 where not given) stands in: the gradient of such a loss must not move the weights.

    Args:
        loss: any value.
        lr: the policy's learning rate, if the loss is finite.
        last_lr: the run's last learning rate; NaN if it has none.
        factor: what the policy's learning rate is multiplied by.
        min_lr: the lower bound.
        max_lr: the upper bound.
    """
    if math.isfinite(loss):
        return clip(lr * factor, min_lr, max_lr)
    return min_lr if math.isnan(last_lr) else last_lr


@compiled
def _bound(table: RunTable, rows: Rows, losses: Floats, last_lrs: Floats, lrs: Floats) -> None:
    for entry in range(len(rows)):
        row, run = rows[entry], table[rows[entry]]
        lr = bounded(losses[entry], lrs[entry], last_lrs[row], run.factor, run.min_lr, run.max_lr)
        last_lrs[row] = lrs[entry] = lr


def advise(
    policy: Policy,
    states: States,
    networks: Networks,
    table: RunTable,
    rows: Rows,
    steps: Steps,
    losses: Floats,
    last_lrs: Floats,
    signals: Signals = NO_SIGNALS,
) -> Floats:
    """Advise runs for a step each entry, in the order of the entries; return the learning rates, (n,).

    Args:
        policy: the model, or schedule.
        states: (runs, state_size) float32; changed in place.
        networks: (runs, network_size) float32; changed in place.
        table: the configs of the runs, (runs,).
        rows: the runs to advance, (n,).
        steps: (n,) int64.
        losses: (n,) float64; any value.
        last_lrs: (runs,) float64, NaN for a run that has no advice yet; changed in place.
        signals: what came with the observations, see `Policy.advance`.
    """
    lrs = np.full(len(rows), np.nan)
    policy.advance(states, networks, table, rows, steps, losses, signals, lrs)
    _bound(table, rows, losses, last_lrs, lrs)
    return lrs


def step(
    policy: Policy,
    states: States,
    steps: Steps,
    losses: Floats,
    runs: RunColumns,
    signals: Signals = NO_SIGNALS,
) -> tuple[Floats, States]:
    """Return what one step of n runs under the policy's own weights gives, and change nothing.

    Args:
        policy: the model, or schedule.
        states: (n, state_size) float32.
        steps: (n,) int64.
        losses: (n,) float64, finite.
        runs: the configs.
        signals: what came with the observations, see `Policy.advance`.

    Returns:
        The policy's learning rates, (n,) float64, and the new states.
    """
    moved, lrs = states.copy(), np.full(len(losses), np.nan)
    networks, rows = no_networks(policy, len(losses)), np.arange(len(losses))
    policy.advance(moved, networks, runs.table(), rows, steps, losses, signals, lrs)
    return lrs, moved
