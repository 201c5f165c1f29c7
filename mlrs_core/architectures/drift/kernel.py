"""The drift network as a compiled kernel: a loop over runs, so that a run's bits are its own.

Everything is computed in double precision and kept in single: differences of moving averages in units
of the noise magnify last bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mlrs_core.architectures.architecture import Weights
from mlrs_core.architectures.drift.features import look
from mlrs_core.architectures.drift.memory import Memory, is_due, jumps, remember, take_in
from mlrs_core.architectures.drift.rows import HIGH, LOW
from mlrs_core.architectures.drift.spec import (
    EXTRAS,
    FALL,
    FEATURES,
    JUMP,
    MAX_DRIFT,
    MIN_DRIFT,
    REACH,
    RISE,
    DriftSpec,
)
from mlrs_core.compiled import clip, compiled, sigmoid, wide
from mlrs_core.policy import Floats, Networks, Rows, RunTable, States, Steps
from mlrs_core.snapshots import snapshot_at
from mlrs_core.usual import usual_lr


class DriftKernel:
    """`Policy` of the drift network.

    A run's state is a row of `2 * H + EXTRAS` floats: hidden state, cell state, and what it remembers.
    """

    def __init__(self, spec: DriftSpec, snapshots: Sequence[Weights]) -> None:
        """Lay out the weights of one or more snapshots for the kernel."""
        self._size = spec.state_size
        self._jump = math.inf if spec.inputs == "progress" else JUMP
        # A feature that is not seen has no weight; a weight of 0 times a finite feature is 0.
        mask = np.array([*spec.feature_mask(), *[1.0] * spec.hidden_size])
        self._cells = np.array([(weights["cell.weight"] * mask).T for weights in snapshots], np.float64)
        self._biases = np.array([weights["cell.bias"] for weights in snapshots], np.float64)
        self._heads = np.array(
            [np.column_stack([weights["head.weight"], weights["head.bias"]]) for weights in snapshots],
            np.float64,
        )

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

    def advance(
        self,
        states: States,
        networks: Networks,
        table: RunTable,
        rows: Rows,
        steps: Steps,
        losses: Floats,
        lrs: Floats,
    ) -> None:
        """Advance runs by a step for each entry; see `Policy.advance`."""
        del networks
        _advance(states, table, rows, steps, losses, lrs, self._cells, self._biases, self._heads, self._jump)


@compiled
def _advance(
    states: States,
    table: RunTable,
    rows: Rows,
    steps: Steps,
    losses: Floats,
    lrs: Floats,
    cells: Floats,
    biases: Floats,
    heads: Floats,
    jump: float,
) -> None:
    recurrent = states.shape[1] - EXTRAS
    features, gates = np.empty(FEATURES), np.empty(2 * recurrent)
    for entry in range(len(rows)):
        if not math.isfinite(losses[entry]):
            continue
        run, step = table[rows[entry]], steps[entry]
        cell, memory = states[rows[entry], :recurrent], states[rows[entry], recurrent:]
        usual = usual_lr(run)
        x = take_in(memory, losses[entry], run, usual)
        due = is_due(memory, step, run)
        if jumps(memory, x, jump) or due:
            look(memory, remember(memory), step, run, usual, features)
            chosen = snapshot_at(step, run.horizon, run.snapshot, len(cells))
            aim = _think(cell, features, cells[chosen], biases[chosen], heads[chosen], gates)
            _move(memory, aim)
        lrs[entry] = usual * math.exp(wide(memory[HIGH]) + wide(memory[LOW]))


@compiled
def _think(state: Memory, features: Floats, cell: Floats, bias: Floats, head: Floats, gates: Floats) -> float:
    """Advance a cell, its state (2 H,) in place; return where the head aims."""
    size = len(state) // 2
    gates[:] = bias
    for feature in range(FEATURES):
        for gate in range(4 * size):
            gates[gate] += features[feature] * cell[feature, gate]
    for unit in range(size):
        before = wide(state[unit])
        for gate in range(4 * size):
            gates[gate] += before * cell[FEATURES + unit, gate]
    base, shut = wide(head[0, size]), wide(head[1, size])
    for unit in range(size):
        take, forget = sigmoid(gates[unit]), sigmoid(gates[size + unit] + 1)
        kept = forget * wide(state[size + unit]) + take * math.tanh(gates[3 * size + unit])
        hidden = sigmoid(gates[2 * size + unit]) * math.tanh(kept)
        state[unit], state[size + unit] = hidden, kept
        base += hidden * head[0, unit]
        shut += hidden * head[1, unit]
    return REACH * base + _log_sigmoid(4 * shut + 3)


@compiled
def _log_sigmoid(x: float) -> float:
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))


@compiled
def _move(memory: Memory, aim: float) -> None:
    """Move the log-LR towards an aim."""
    drift = wide(memory[HIGH]) + wide(memory[LOW])
    drift = clip(drift + clip(aim - drift, -FALL, RISE), MIN_DRIFT, MAX_DRIFT)
    memory[HIGH] = drift
    memory[LOW] = drift - wide(memory[HIGH])
