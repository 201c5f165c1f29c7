"""The drift network in meta mode.

A trace is the state of the cell before a tick, what the run remembered before it, the tick's step (in three
parts that single precision holds), and how it met its aim. Between ticks, and where a tick only moves the
learning rate as far as it may, the learning rate depends on the weights through an earlier tick; so two are
kept: the newest, and the last before it that reached its aim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, final

import numpy as np
import numpy.typing as npt

from mlrs_core.adapting.guard_rails import watch
from mlrs_core.adapting.state_layout import FRESH, RING, UPDATES
from mlrs_core.adapting.unpacking import unpacked
from mlrs_core.compiled import compiled, compiled_background, copy_to, sigmoid
from mlrs_core.networks.architecture import Weights
from mlrs_core.networks.cell import backwards, forwards, packed, scratch
from mlrs_core.networks.drift.constants import EXTRAS, FEATURES
from mlrs_core.networks.drift.features import look
from mlrs_core.networks.drift.kernel import DriftKernel, aim_of, is_time, learning_rate, tick
from mlrs_core.networks.drift.memory import Memory, default_lr, remember
from mlrs_core.networks.drift.spec import DriftSpec
from mlrs_core.networks.drift.state_layout import BOUND, LIMITED, REACHED
from mlrs_core.networks.drift.table import ConstantTable, constants_table
from mlrs_core.networks.snapshots import snapshot_at
from mlrs_core.policy import Floats, Networks, Rows, RunTable, Signals, States, Steps

STEP, MET = -4, -1
"""Entries of a trace from its end: the step's three parts, and how the aim was met (0: no tick yet)."""
_PART = 2**24


@final
class DriftLearner:
    """`Learner` of the drift network."""

    traces = 2

    def __init__(self, spec: DriftSpec, snapshots: Sequence[Weights]) -> None:
        """Lay out the weights of one or more snapshots."""
        self._spec = spec
        self._frozen = DriftKernel(spec, snapshots)
        self._constants = constants_table(spec)
        self._advance: Callable[..., None] = _advance
        self.shared = np.stack([packed(weights) for weights in snapshots])
        self.frozen_size = self._frozen.state_size
        self.trace_size = self.frozen_size + 4

    def init_frozen(self, n: int) -> States:
        """Return the frozen policy's states of n runs before their first step, (n, frozen_size)."""
        return self._frozen.init_state(n)

    def unpacked(self, weights: Memory) -> dict[str, Memory]:
        """Return the weights of one snapshot, (P,), by name."""
        return unpacked(self._spec.weight_shapes(), packed, weights)

    def background(self) -> DriftLearner:
        """Return the same for long work on another thread; see `Policy.background`."""
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
        blow_up: float,
    ) -> None:
        """Advance runs by a step for each entry; see `Learner.advance`."""
        del signals
        columns = (table, rows, steps, losses, lrs)
        self._advance(states, networks, *columns, self.shared, self._constants, self.frozen_size, blow_up)

    def find(self, state: Memory, network: Memory, table: RunTable, row: int) -> tuple[int, int, float]:
        """Return where the learning rate of a run comes from; see `Learner.find`."""
        del network
        return _find(state, self.frozen_size, table, row, len(self.shared), self._constants)

    def slope(self, trace: Memory, table: RunTable, row: int, weights: Memory, gradient: Floats) -> None:
        """Fill the gradient of the log learning rate of a trace; see `Learner.slope`."""
        _slope(trace, table, row, weights, self._constants, gradient)

    def levels(self, traces: States, table: RunTable, row: int, network: Memory, levels: Floats) -> None:
        """Fill the aims of some traces; see `Learner.levels`."""
        shape = self.shared.shape
        _levels(traces, table, row, network, shape[0], shape[1], self._constants, levels)

    def again(self, state: Memory, table: RunTable, row: int, network: Memory) -> float:
        """Take the newest step, a tick, again; see `Learner.again`."""
        return _again(state, self.frozen_size, table, row, network, self.shared.shape, self._constants)


@compiled
def _advance(
    states: States,
    networks: Networks,
    table: RunTable,
    rows: Rows,
    steps: Steps,
    losses: Floats,
    lrs: Floats,
    shared: npt.NDArray[np.float32],
    constants: ConstantTable,
    size: int,
    blow_up: float,
) -> None:
    """Advance runs as the frozen kernel does, each under its weights, with a trace of each tick."""
    recurrent, width, long, fixed = size - EXTRAS, shared.shape[1], size + 4, constants[0]
    features, gates = np.empty(FEATURES), np.empty(2 * recurrent)
    for entry in range(len(rows)):
        row, step, loss = rows[entry], steps[entry], losses[entry]
        cell, memory = states[row, :recurrent], states[row, recurrent:size]
        newest, counted = states[row, size : size + long], states[row, size + long : size + 2 * long]
        scalars, network = states[row, size + (2 + RING) * long :], networks[row]
        watch(scalars, network, loss, blow_up)
        if not math.isfinite(loss):
            continue
        run = table[row]
        default = default_lr(run, fixed)
        if is_time(memory, loss, step, run, default, fixed):
            _keep(newest, counted, states[row, :size], step)
            scalars[FRESH] = 1.0
            chosen = snapshot_at(step, run.horizon, run.snapshot, len(shared))
            weights = (
                network[chosen * width : (chosen + 1) * width] if scalars[UPDATES] > 0 else shared[chosen]
            )
            newest[MET] = tick(cell, memory, step, run, default, weights, fixed, features, gates)
        lrs[entry] = learning_rate(memory, default)


@compiled_background
def _advance_background(*arguments: Any) -> None:
    """Advance runs as `_advance`, while other threads go on."""
    _advance(*arguments)


@compiled
def _keep(newest: Memory, counted: Memory, state: Memory, step: int) -> None:
    """Begin the trace of a tick at a step, and fill all of it but how it meets its aim."""
    if newest[MET] == REACHED:
        copy_to(counted, newest)
    elif newest[MET] == BOUND:
        counted[MET] = 0.0
    copy_to(newest[: len(state)], state)
    rest = step
    for part in range(3):
        newest[STEP + part] = rest % _PART
        rest //= _PART


@compiled
def _step_of(trace: Memory) -> int:
    """Return the step of a trace."""
    step = 0
    for part in range(2, -1, -1):
        step = step * _PART + int(trace[len(trace) + STEP + part])
    return step


@compiled
def _find(
    state: Memory, size: int, table: RunTable, row: int, snapshots: int, constants: ConstantTable
) -> tuple[int, int, float]:
    """Return the trace that the learning rate comes from, its snapshot, and the learning rate."""
    run, long = table[row], size + 4
    newest, counted = state[size : size + long], state[size + long : size + 2 * long]
    which = -1
    if newest[MET] == REACHED:
        which = 0
    elif newest[MET] == LIMITED and counted[MET] == REACHED:
        which = 1
    step = _step_of(newest if which == 0 else counted)
    snapshot = snapshot_at(step, run.horizon, run.snapshot, snapshots)
    return which, snapshot, learning_rate(state[size - EXTRAS : size], default_lr(run, constants[0]))


@compiled
def _see(trace: Memory, table: RunTable, row: int, fixed: Any, features: Floats) -> int:
    """Fill what the cell saw at a tick; return its step."""
    run, step = table[row], _step_of(trace)
    memory = trace[len(trace) + STEP - EXTRAS : len(trace) + STEP].copy()
    look(memory, remember(memory, fixed), step, run, default_lr(run, fixed), fixed, features)
    return step


@compiled
def _slope(
    trace: Memory, table: RunTable, row: int, weights: Memory, constants: ConstantTable, gradient: Floats
) -> None:
    features, cell = np.empty(FEATURES), trace[: len(trace) + STEP - EXTRAS]
    fixed = constants[0]
    _see(trace, table, row, fixed, features)
    seen = scratch(len(cell) // 2)
    _, shut = forwards(cell, features, weights, fixed.forget_bias, seen)
    closing = fixed.gate_slope * sigmoid(-(fixed.gate_slope * shut + fixed.gate_start))
    backwards(cell, features, weights, seen, (fixed.reach, closing), gradient)


@compiled
def _levels(
    traces: States,
    table: RunTable,
    row: int,
    network: Memory,
    snapshots: int,
    width: int,
    constants: ConstantTable,
    levels: Floats,
) -> None:
    fixed = constants[0]
    features, recurrent = np.empty(FEATURES), traces.shape[1] + STEP - EXTRAS
    run, seen = table[row], scratch(recurrent // 2)
    for index in range(len(traces)):
        step = _see(traces[index], table, row, fixed, features)
        chosen = snapshot_at(step, run.horizon, run.snapshot, snapshots)
        weights = network[chosen * width : (chosen + 1) * width]
        base, shut = forwards(traces[index, :recurrent], features, weights, fixed.forget_bias, seen)
        levels[index] = aim_of(base, shut, fixed)


@compiled
def _again(
    state: Memory,
    size: int,
    table: RunTable,
    row: int,
    network: Memory,
    shape: tuple[int, int],
    constants: ConstantTable,
) -> float:
    """Take a tick again, from the state before it; return the learning rate."""
    run, recurrent, fixed = table[row], size - EXTRAS, constants[0]
    newest, default = state[size : size + size + 4], default_lr(run, fixed)
    copy_to(state[:size], newest[:size])
    step = _step_of(newest)
    chosen = snapshot_at(step, run.horizon, run.snapshot, shape[0])
    weights = network[chosen * shape[1] : (chosen + 1) * shape[1]]
    features, gates = np.empty(FEATURES), np.empty(2 * recurrent)
    cell, memory = state[:recurrent], state[recurrent:size]
    newest[MET] = tick(cell, memory, step, run, default, weights, fixed, features, gates)
    return learning_rate(memory, default)
