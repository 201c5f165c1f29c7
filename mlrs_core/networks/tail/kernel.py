"""The tail network as a compiled kernel: a loop over runs, so that a run's bits are its own.

Everything is computed in double precision and kept in single: differences of moving averages in units of the
noise magnify last bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import numpy as np

from mlrs_core.compiled import clip, compiled, compiled_background, wide
from mlrs_core.networks.architecture import Weights
from mlrs_core.networks.cell import packed, think
from mlrs_core.networks.snapshots import snapshot_at
from mlrs_core.networks.tail.constants import FEATURES
from mlrs_core.networks.tail.features import look
from mlrs_core.networks.tail.memory import (
    VALIDATION,
    Memory,
    first_lr,
    remember,
    schedule,
    take_in,
    take_in_signals,
    take_in_validation,
)
from mlrs_core.networks.tail.spec import TailSpec
from mlrs_core.networks.tail.state_layout import EXTRAS, GATE, HIGH, LOW
from mlrs_core.networks.tail.table import ConstantTable, constants_table
from mlrs_core.policy import Floats, Networks, Rows, RunTable, Signals, States, Steps


class TailKernel:
    """`Policy` of the tail network.

    A run's state is a row of `2 * H + EXTRAS` floats: hidden state, cell state, and what it remembers.
    """

    def __init__(self, spec: TailSpec, snapshots: Sequence[Weights]) -> None:
        """Lay out the weights of one or more snapshots for the kernel."""
        self._size = spec.state_size
        self._constants = constants_table(spec.constants)
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

    def background(self) -> TailKernel:
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
        del networks
        self._advance(states, table, rows, steps, losses, signals, lrs, self._weights, self._constants)


@compiled
def _advance(
    states: States,
    table: RunTable,
    rows: Rows,
    steps: Steps,
    losses: Floats,
    signals: Signals,
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
        if observe(memory, losses[entry], signals, entry, step, run, fixed):
            chosen = weights[snapshot_at(step, run.horizon, run.snapshot, len(weights))]
            turn(cell, memory, step, run, chosen, fixed, features, gates)
        lrs[entry] = learning_rate(memory, step, run, fixed)


@compiled_background
def _advance_background(*arguments: Any) -> None:
    """Advance runs as `_advance`, while other threads go on."""
    _advance(*arguments)


@compiled
def advance_each(
    states: States,
    table: RunTable,
    step: int,
    losses: Floats,
    signals: Signals,
    lrs: Floats,
    weights: Memory,
    constants: ConstantTable,
) -> None:
    """Advance runs by one step, each under its own weights: for meta-training.

    Args:
        states: (n, state_size); changed in place.
        table: the configs of the runs, (n,).
        step: of all.
        losses: (n,), finite.
        signals: see `Policy.advance`.
        lrs: (n,), filled.
        weights: (n, P), each as `packed` lays them out.
        constants: of the model.
    """
    fixed = constants[0]
    recurrent = states.shape[1] - EXTRAS
    features, gates = np.empty(FEATURES), np.empty(2 * recurrent)
    for row in range(len(states)):
        run, cell, memory = table[row], states[row, :recurrent], states[row, recurrent:]
        if observe(memory, losses[row], signals, row, step, run, fixed):
            turn(cell, memory, step, run, weights[row], fixed, features, gates)
        lrs[row] = learning_rate(memory, step, run, fixed)


@compiled
def observe(
    memory: Memory, loss: float, signals: Signals, entry: int, step: int, run: Any, fixed: Any
) -> bool:
    """Add up a loss and what came with it; return whether it is time for a look."""
    due = take_in(memory, loss, step, run, fixed)
    if len(signals) > 0:
        take_in_signals(memory, signals[entry])
        if math.isfinite(signals[entry, VALIDATION]):
            take_in_validation(memory, signals[entry, VALIDATION], step, run, fixed)
    return due


@compiled
def learning_rate(memory: Memory, step: int, run: Any, fixed: Any) -> float:
    """Return the learning rate of a step: the schedule's, as it is corrected."""
    correction = wide(memory[HIGH]) + wide(memory[LOW]) + wide(memory[GATE])
    return first_lr(run) * schedule(step, run, fixed) * math.exp(correction)


@compiled
def turn(
    cell: Memory,
    memory: Memory,
    step: int,
    run: Any,
    weights: Memory,
    fixed: Any,
    features: Floats,
    gates: Floats,
) -> None:
    """Look at what came since the last look, and set the correction.

    Args:
        cell: (2 H,), hidden and cell state; moved.
        memory: (EXTRAS,), moved.
        step: from 0.
        run: its config.
        weights: (P,), as `packed` lays them out.
        fixed: the model's constants.
        features: (FEATURES,), overwritten with what it saw.
        gates: (4 H,), overwritten.
    """
    look(memory, remember(memory, fixed), step, run, fixed, features)
    pull, gate = think(cell, features, weights, fixed.forget_bias, gates)
    drift = drifted(memory, pull, fixed)
    memory[HIGH] = drift
    memory[LOW] = drift - wide(memory[HIGH])
    memory[GATE] = fixed.reach * math.tanh(gate)


@compiled
def drifted(memory: Memory, pull: float, fixed: Any) -> float:
    """Return where the drift is after a look at which the head's first number is `pull`."""
    moved = wide(memory[HIGH]) + wide(memory[LOW]) + fixed.pace * math.tanh(pull)
    return clip(moved, fixed.min_drift, fixed.max_drift)
