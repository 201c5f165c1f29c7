"""The paper's network in meta mode.

A trace is the state before a step, with gamma, snapshot and ln C as the step chose them, and the loss that
entered the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import Any, final

import numpy as np
import numpy.typing as npt

from mlrs_core.adapting.guard_rails import watch
from mlrs_core.adapting.state_layout import FRESH, RING, UPDATES
from mlrs_core.adapting.unpacking import unpacked
from mlrs_core.compiled import clip, compiled, compiled_background, copy_to, log_sigmoid
from mlrs_core.networks.architecture import Weights
from mlrs_core.networks.paper.gradient import COLUMNS, backwards, forwards
from mlrs_core.networks.paper.kernel import PaperKernel, choose, forget_shift, learning_rate, packed, think
from mlrs_core.networks.paper.spec import PaperSpec
from mlrs_core.networks.snapshots import snapshot_at
from mlrs_core.policy import Floats, Networks, Rows, RunTable, Signals, States, Steps

Vector = npt.NDArray[np.float32]


@final
class PaperLearner:
    """`Learner` of the paper's network. Every step asks the network: the one trace is the newest's."""

    traces = 1

    def __init__(self, spec: PaperSpec, snapshots: Sequence[Weights]) -> None:
        """Lay out the weights of one or more snapshots."""
        self._spec = spec
        self._frozen = PaperKernel(spec, snapshots)
        self._layers, self._hidden = spec.num_layers, spec.hidden_size
        self._shift = forget_shift(spec)
        self._advance: Callable[..., None] = _advance
        self.shared = np.stack([packed(spec, weights) for weights in snapshots])
        self.frozen_size = self._frozen.state_size
        self.trace_size = self.frozen_size + 1

    def init_frozen(self, n: int) -> States:
        """Return the frozen policy's states of n runs before their first step, (n, frozen_size)."""
        return self._frozen.init_state(n)

    def unpacked(self, weights: Vector) -> dict[str, Vector]:
        """Return the weights of one snapshot, (P,), by name."""
        return unpacked(self._spec.weight_shapes(), partial(packed, self._spec), weights)

    def background(self) -> PaperLearner:
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
        shape = (self._hidden, self._layers, self._shift)
        self._advance(states, networks, *columns, self.shared, *shape, self._spec.max_loss, blow_up)

    def find(self, state: Vector, network: Vector, table: RunTable, row: int) -> tuple[int, int, float]:
        """Return where the learning rate of a run comes from; see `Learner.find`."""
        if state[self.frozen_size - 2] < 0:
            return -1, 0, math.nan
        trace = state[self.frozen_size : self.frozen_size + self.trace_size].copy()
        snapshot = int(trace[-3])
        shape = (self._hidden, self._layers, self._shift)
        return 0, snapshot, _step(trace[:-1], trace[-1], table, row, self._at(network, snapshot), *shape)

    def slope(self, trace: Vector, table: RunTable, row: int, weights: Vector, gradient: Floats) -> None:
        """Fill the gradient of the log learning rate of a trace; see `Learner.slope`."""
        del table, row
        _slope(trace, weights, self._layers, self._hidden, float(self._shift), gradient)

    def levels(self, traces: States, table: RunTable, row: int, network: Vector, levels: Floats) -> None:
        """Fill the log learning rates of some traces, but for gamma's; see `Learner.levels`."""
        del table, row
        width = self.shared.shape[1]
        _levels(traces, network, width, self._layers, self._hidden, float(self._shift), levels)

    def again(self, state: Vector, table: RunTable, row: int, network: Vector) -> float:
        """Take the newest step again; see `Learner.again`."""
        trace = state[self.frozen_size : self.frozen_size + self.trace_size]
        frozen = state[: self.frozen_size]
        frozen[:] = trace[:-1]
        shape = (self._hidden, self._layers, self._shift)
        return _step(frozen, trace[-1], table, row, self._at(network, int(trace[-3])), *shape)

    def _at(self, network: Vector, snapshot: int) -> Vector:
        width = self.shared.shape[1]
        return network[snapshot * width : (snapshot + 1) * width]


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
    hidden: int,
    layers: int,
    shift: np.float32,
    max_loss: float,
    blow_up: float,
) -> None:
    """Advance runs as the frozen kernel does, each under its weights, with a trace of the step."""
    inputs, between = np.empty(hidden, np.float32), np.empty(hidden // 2, np.float32)
    gates = np.empty(4 * hidden, np.float32)
    size, width = 2 * layers * hidden + 3, shared.shape[1]
    for entry in range(len(rows)):
        row, loss = rows[entry], losses[entry]
        state, trace = states[row, :size], states[row, size : 2 * size + 1]
        scalars, network = states[row, size + (1 + RING) * (size + 1) :], networks[row]
        watch(scalars, network, loss, blow_up)
        if not math.isfinite(loss):
            continue
        run = table[row]
        choose(state, snapshot_at(steps[entry], run.horizon, run.snapshot, len(shared)), loss, run)
        inputs[0] = clip(loss, -max_loss, max_loss)
        copy_to(trace[:size], state)
        trace[size] = inputs[0]
        scalars[FRESH] = 1.0
        chosen = int(state[size - 2])
        weights = network[chosen * width : (chosen + 1) * width] if scalars[UPDATES] > 0 else shared[chosen]
        score = think(state, inputs, weights, layers, shift, between, gates)
        lrs[entry] = learning_rate(state, run, score)


@compiled_background
def _advance_background(*arguments: Any) -> None:
    """Advance runs as `_advance`, while other threads go on."""
    _advance(*arguments)


@compiled
def _step(
    state: Vector,
    loss: np.float32,
    table: RunTable,
    row: int,
    weights: Vector,
    hidden: int,
    layers: int,
    shift: np.float32,
) -> float:
    """Advance a state by a step, in place; return the learning rate."""
    inputs, between = np.empty(hidden, np.float32), np.empty(hidden // 2, np.float32)
    inputs[0] = loss
    score = think(state, inputs, weights, layers, shift, between, np.empty(4 * hidden, np.float32))
    return learning_rate(state, table[row], score)


@compiled
def _slope(trace: Vector, weights: Vector, layers: int, hidden: int, shift: float, gradient: Floats) -> None:
    seen = np.empty((layers, COLUMNS * hidden))
    score = forwards(trace, weights, layers, hidden, shift, seen)
    backwards(trace, weights, layers, hidden, seen, score, gradient)


@compiled
def _levels(
    traces: States, network: Vector, width: int, layers: int, hidden: int, shift: float, levels: Floats
) -> None:
    seen = np.empty((layers, COLUMNS * hidden))
    for index in range(len(traces)):
        chosen = int(traces[index, traces.shape[1] - 3])
        weights = network[chosen * width : (chosen + 1) * width]
        levels[index] = log_sigmoid(forwards(traces[index], weights, layers, hidden, shift, seen))
