"""The tail network in meta mode.

A trace is the state before a look, with what was added up for it, the look's step, and the newest step (each
in three parts that single precision holds). The correction is set at a look and holds until the next, so the
newest look is all that the learning rate depends on the weights through, by one step of the cell.
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
from mlrs_core.compiled import compiled, compiled_background, copy_to, wide
from mlrs_core.networks.architecture import Weights
from mlrs_core.networks.cell import backwards, forwards, packed, scratch
from mlrs_core.networks.snapshots import snapshot_at
from mlrs_core.networks.tail.constants import FEATURES
from mlrs_core.networks.tail.features import look
from mlrs_core.networks.tail.kernel import TailKernel, drifted, learning_rate, observe, turn
from mlrs_core.networks.tail.memory import Memory, remember
from mlrs_core.networks.tail.spec import TailSpec
from mlrs_core.networks.tail.state_layout import AGE, EXTRAS, HIGH, LOW
from mlrs_core.networks.tail.table import ConstantTable, constants_table
from mlrs_core.policy import Floats, Networks, Rows, RunTable, Signals, States, Steps

PARTS = 3
"""The numbers that a step is kept in, the lowest part first."""
AFTER = 2 * PARTS
"""Entries of a trace after the state: the look's step, and the newest step."""
_PART = 2**24


@final
class TailLearner:
    """`Learner` of the tail network."""

    traces = 1

    def __init__(self, spec: TailSpec, snapshots: Sequence[Weights]) -> None:
        """Lay out the weights of one or more snapshots."""
        self._spec = spec
        self._frozen = TailKernel(spec, snapshots)
        self._constants = constants_table(spec.constants)
        self._advance: Callable[..., None] = _advance
        self.shared = np.stack([packed(weights) for weights in snapshots])
        self.frozen_size = self._frozen.state_size
        self.trace_size = self.frozen_size + AFTER

    def init_frozen(self, n: int) -> States:
        """Return the frozen policy's states of n runs before their first step, (n, frozen_size)."""
        return self._frozen.init_state(n)

    def unpacked(self, weights: Memory) -> dict[str, Memory]:
        """Return the weights of one snapshot, (P,), by name."""
        return unpacked(self._spec.weight_shapes(), packed, weights)

    def background(self) -> TailLearner:
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
        columns = (table, rows, steps, losses, signals, lrs)
        self._advance(states, networks, *columns, self.shared, self._constants, self.frozen_size, blow_up)

    def find(self, state: Memory, network: Memory, table: RunTable, row: int) -> tuple[int, int, float]:
        """Return where the learning rate of a run comes from; see `Learner.find`."""
        del network
        return _find(state, self.frozen_size, table, row, len(self.shared), self._constants)

    def slope(self, trace: Memory, table: RunTable, row: int, weights: Memory, gradient: Floats) -> None:
        """Fill the gradient of the log learning rate of a trace; see `Learner.slope`."""
        _slope(trace, table, row, weights, self._constants, gradient)

    def levels(self, traces: States, table: RunTable, row: int, network: Memory, levels: Floats) -> None:
        """Fill the corrections of some traces; see `Learner.levels`."""
        shape = self.shared.shape
        _levels(traces, table, row, network, shape[0], shape[1], self._constants, levels)

    def again(self, state: Memory, table: RunTable, row: int, network: Memory) -> float:
        """Take the newest step, a look, again; see `Learner.again`."""
        return _again(state, self.frozen_size, table, row, network, self.shared.shape, self._constants)


@compiled
def _advance(
    states: States,
    networks: Networks,
    table: RunTable,
    rows: Rows,
    steps: Steps,
    losses: Floats,
    signals: Signals,
    lrs: Floats,
    shared: npt.NDArray[np.float32],
    constants: ConstantTable,
    size: int,
    blow_up: float,
) -> None:
    """Advance runs as the frozen kernel does, each under its weights, with a trace of each look."""
    recurrent, width, long, fixed = size - EXTRAS, shared.shape[1], size + AFTER, constants[0]
    features, gates = np.empty(FEATURES), np.empty(2 * recurrent)
    for entry in range(len(rows)):
        row, step, loss = rows[entry], steps[entry], losses[entry]
        cell, memory, newest = (
            states[row, :recurrent],
            states[row, recurrent:size],
            states[row, size : size + long],
        )
        scalars, network = states[row, size + (1 + RING) * long :], networks[row]
        watch(scalars, network, loss, blow_up)
        if not math.isfinite(loss):
            continue
        run = table[row]
        if observe(memory, loss, signals, entry, step, run, fixed):
            copy_to(newest[:size], states[row, :size])
            _put_step(newest[size:], step)
            scalars[FRESH] = 1.0
            chosen = snapshot_at(step, run.horizon, run.snapshot, len(shared))
            weights = (
                network[chosen * width : (chosen + 1) * width] if scalars[UPDATES] > 0 else shared[chosen]
            )
            turn(cell, memory, step, run, weights, fixed, features, gates)
        _put_step(newest[size + PARTS :], step)
        lrs[entry] = learning_rate(memory, step, run, fixed)


@compiled_background
def _advance_background(*arguments: Any) -> None:
    """Advance runs as `_advance`, while other threads go on."""
    _advance(*arguments)


@compiled
def _put_step(parts: Memory, step: int) -> None:
    """Write a step into the first entries of an array."""
    rest = step
    for part in range(PARTS):
        parts[part] = rest % _PART
        rest //= _PART


@compiled
def _step_in(parts: Memory) -> int:
    """Return the step in the first entries of an array."""
    step = 0
    for part in range(PARTS - 1, -1, -1):
        step = step * _PART + int(parts[part])
    return step


@compiled
def _find(
    state: Memory, size: int, table: RunTable, row: int, snapshots: int, constants: ConstantTable
) -> tuple[int, int, float]:
    """Return the trace that the learning rate comes from, its snapshot, and the learning rate."""
    run, memory, after = table[row], state[size - EXTRAS : size], state[2 * size :]
    which = 0 if memory[AGE] > 0 else -1
    snapshot = snapshot_at(_step_in(after), run.horizon, run.snapshot, snapshots)
    return which, snapshot, learning_rate(memory, _step_in(after[PARTS:]), run, constants[0])


@compiled
def _see(trace: Memory, table: RunTable, row: int, fixed: Any, features: Floats, memory: Memory) -> int:
    """Fill what the cell saw at a look, and the memory with it, (EXTRAS,); return its step."""
    run, step = table[row], _step_in(trace[len(trace) - AFTER :])
    copy_to(memory, trace[len(trace) - AFTER - EXTRAS : len(trace) - AFTER])
    look(memory, remember(memory, fixed), step, run, fixed, features)
    return step


@compiled
def _slope(
    trace: Memory, table: RunTable, row: int, weights: Memory, constants: ConstantTable, gradient: Floats
) -> None:
    features, memory = np.empty(FEATURES), np.empty(EXTRAS, np.float32)
    cell, fixed = trace[: len(trace) - AFTER - EXTRAS], constants[0]
    _see(trace, table, row, fixed, features, memory)
    seen = scratch(len(cell) // 2)
    pull, gate = forwards(cell, features, weights, fixed.forget_bias, seen)
    moved = wide(memory[HIGH]) + wide(memory[LOW]) + fixed.pace * math.tanh(pull)
    free = 1.0 if fixed.min_drift < moved < fixed.max_drift else 0.0
    slopes = (free * fixed.pace * (1 - math.tanh(pull) ** 2), fixed.reach * (1 - math.tanh(gate) ** 2))
    backwards(cell, features, weights, seen, slopes, gradient)


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
    features, memory = np.empty(FEATURES), np.empty(EXTRAS, np.float32)
    recurrent, run = traces.shape[1] - AFTER - EXTRAS, table[row]
    seen = scratch(recurrent // 2)
    for index in range(len(traces)):
        step = _see(traces[index], table, row, fixed, features, memory)
        chosen = snapshot_at(step, run.horizon, run.snapshot, snapshots)
        weights = network[chosen * width : (chosen + 1) * width]
        pull, gate = forwards(traces[index, :recurrent], features, weights, fixed.forget_bias, seen)
        levels[index] = drifted(memory, pull, fixed) + fixed.reach * math.tanh(gate)


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
    """Take a look again, from the state before it; return the learning rate."""
    run, recurrent, fixed = table[row], size - EXTRAS, constants[0]
    copy_to(state[:size], state[size : 2 * size])
    step = _step_in(state[2 * size :])
    chosen = snapshot_at(step, run.horizon, run.snapshot, shape[0])
    weights = network[chosen * shape[1] : (chosen + 1) * shape[1]]
    features, gates = np.empty(FEATURES), np.empty(2 * recurrent)
    cell, memory = state[:recurrent], state[recurrent:size]
    turn(cell, memory, step, run, weights, fixed, features, gates)
    return learning_rate(memory, step, run, fixed)
