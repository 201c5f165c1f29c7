"""The drift network as a compiled kernel: a loop over runs, so that a run's bits are its own.

Everything is computed in double precision and kept in single: differences of moving averages in units
of the noise magnify last bits.

`fixed` are the model's constants, a record of `CONSTANTS`: data, so that models with other constants share
this machine code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import numpy as np

from mlrs_core.compiled import clip, compiled, compiled_background, log_sigmoid, wide
from mlrs_core.networks.architecture import Weights
from mlrs_core.networks.cell import packed, think
from mlrs_core.networks.drift.constants import EXTRAS, FEATURES
from mlrs_core.networks.drift.features import look
from mlrs_core.networks.drift.memory import Memory, default_lr, is_due, jumps, remember, take_in
from mlrs_core.networks.drift.spec import DriftSpec
from mlrs_core.networks.drift.state_layout import BOUND, HIGH, LIMITED, LOW, REACHED
from mlrs_core.networks.drift.table import ConstantTable, constants_table
from mlrs_core.networks.snapshots import snapshot_at
from mlrs_core.policy import Floats, Networks, Rows, RunTable, Signals, States, Steps


class DriftKernel:
    """`Policy` of the drift network.

    A run's state is a row of `2 * H + EXTRAS` floats: hidden state, cell state, and what it remembers.
    """

    def __init__(self, spec: DriftSpec, snapshots: Sequence[Weights]) -> None:
        """Lay out the weights of one or more snapshots for the kernel."""
        self._size = spec.state_size
        self._constants = constants_table(spec)
        self._weights = np.stack([packed(weights) for weights in snapshots])
        self._advance: Callable[..., None] = _advance

    @property
    def state_size(self) -> int:
        """The length of a run's state."""
        return self._size

    @property
    def network_size(self) -> int:
        """The length of a run's own network: 0, it has none."""
        return 0

    def init_state(self, n: int) -> States:
        """Return the states of n runs before their first step, (n, state_size) float32."""
        return np.zeros((n, self._size), np.float32)

    def background(self) -> DriftKernel:
        """Return the same policy for long work on another thread; see `Policy.background`."""
        twin = copy(self)
        twin._advance = _advance_background  # noqa: SLF001  # a copy of itself
        return twin

    def advance(
        self,
        states: States,
        networks: Networks,
        table: RunTable,
        rows: Rows,
        steps: Steps,
        losses: Floats,
        signals: Signals,
        lrs: Floats,
    ) -> None:
        """Advance runs by a step for each entry; see `Policy.advance`."""
        del networks, signals
        self._advance(states, table, rows, steps, losses, lrs, self._weights, self._constants)


@compiled
def _advance(
    states: States,
    table: RunTable,
    rows: Rows,
    steps: Steps,
    losses: Floats,
    lrs: Floats,
    weights: Memory,
    constants: ConstantTable,
) -> None:
    fixed = constants[0]
    recurrent = states.shape[1] - EXTRAS
    features, gates = np.empty(FEATURES), np.empty(2 * recurrent)
    for entry in range(len(rows)):
        if not math.isfinite(losses[entry]):
            continue
        run, step = table[rows[entry]], steps[entry]
        cell, memory = states[rows[entry], :recurrent], states[rows[entry], recurrent:]
        default = default_lr(run, fixed)
        if is_time(memory, losses[entry], step, run, default, fixed):
            chosen = weights[snapshot_at(step, run.horizon, run.snapshot, len(weights))]
            tick(cell, memory, step, run, default, chosen, fixed, features, gates)
        lrs[entry] = learning_rate(memory, default)


@compiled_background
def _advance_background(*arguments: Any) -> None:
    """Advance runs as `_advance`, while other threads go on."""
    _advance(*arguments)


@compiled
def is_time(memory: Memory, loss: float, step: int, run: Any, default: float, fixed: Any) -> bool:
    """Add a loss up; return whether it makes a tick."""
    x = take_in(memory, loss, run, default, fixed)
    due = is_due(memory, step, run, fixed)
    return jumps(memory, x, fixed.jump) or due


@compiled
def learning_rate(memory: Memory, default: float) -> float:
    """Return the learning rate that holds."""
    return default * math.exp(wide(memory[HIGH]) + wide(memory[LOW]))


@compiled
def tick(
    cell: Memory,
    memory: Memory,
    step: int,
    run: Any,
    default: float,
    weights: Memory,
    fixed: Any,
    features: Floats,
    gates: Floats,
) -> int:
    """Look at the losses since the last tick and set the learning rate; return how the aim was met.

    Args:
        cell: (2 H,), hidden and cell state; moved.
        memory: (EXTRAS,), moved.
        step: from 0.
        run: its config.
        default: its family's default learning rate.
        weights: (P,), as `packed` lays them out.
        fixed: the model's constants.
        features: (FEATURES,), overwritten with what it saw.
        gates: (4 H,), overwritten.

    Returns:
        REACHED, LIMITED or BOUND.
    """
    look(memory, remember(memory, fixed), step, run, default, fixed, features)
    base, shut = think(cell, features, weights, fixed.forget_bias, gates)
    return _move(memory, aim_of(base, shut, fixed), fixed)


@compiled
def aim_of(base: float, shut: float, fixed: Any) -> float:
    """Return where the log-LR over the default one should be, from what the head says."""
    reached: float = fixed.reach * base
    return reached + log_sigmoid(fixed.gate_slope * shut + fixed.gate_start)


@compiled
def _move(memory: Memory, aim: float, fixed: Any) -> int:
    """Move the log-LR towards an aim; return how it was met."""
    before = wide(memory[HIGH]) + wide(memory[LOW])
    moved = before + clip(aim - before, -fixed.fall, fixed.rise)
    drift = clip(moved, fixed.min_drift, fixed.max_drift)
    memory[HIGH] = drift
    memory[LOW] = drift - wide(memory[HIGH])
    if moved != drift:
        return BOUND
    return REACHED if -fixed.fall <= aim - before <= fixed.rise else LIMITED
