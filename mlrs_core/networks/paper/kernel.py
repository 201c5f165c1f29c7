"""The paper's network as a compiled kernel: a loop over runs, so that a run's bits are its own.

Products and sums are in single precision, as the authors' are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from mlrs_core.compiled import clip, compiled, compiled_background, copy_to, sigmoid, wide
from mlrs_core.networks.architecture import Weights
from mlrs_core.networks.paper.spec import GateLayout, PaperSpec
from mlrs_core.networks.scale import guess_log_classes, shu_gamma
from mlrs_core.networks.snapshots import snapshot_at
from mlrs_core.policy import Floats, Networks, Rows, RunTable, Signals, States, Steps

Vector = npt.NDArray[np.float32]


class PaperKernel:
    """`Policy` of the paper's network.

    A run's state is a row of `2 * num_layers * H + 3` floats: hidden states, cell states, gamma,
    the snapshot that gamma was chosen at (-1 before the first step), and ln C.
    """

    def __init__(self, spec: PaperSpec, snapshots: Sequence[Weights]) -> None:
        """Lay out the weights of one or more snapshots for the kernel."""
        self._hidden = spec.hidden_size
        self._layers = spec.num_layers
        self._shift, self._max_loss = forget_shift(spec), spec.max_loss
        self._weights = np.stack([packed(spec, weights) for weights in snapshots])
        self._advance: Callable[..., None] = _advance

    @property
    def state_size(self) -> int:
        """The length of a run's state."""
        return 2 * self._layers * self._hidden + 3

    @property
    def network_size(self) -> int:
        """The length of a run's own network: 0, it has none."""
        return 0

    def init_state(self, n: int) -> States:
        """Return the states of n runs before their first step, (n, state_size) float32."""
        states = np.zeros((n, self.state_size), np.float32)
        states[:, -2] = -1
        return states

    def background(self) -> PaperKernel:
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
        shape = (self._hidden, self._layers, self._shift)
        self._advance(states, table, rows, steps, losses, lrs, self._weights, *shape, self._max_loss)


@compiled
def _advance(
    states: States,
    table: RunTable,
    rows: Rows,
    steps: Steps,
    losses: Floats,
    lrs: Floats,
    weights: npt.NDArray[np.float32],
    hidden: int,
    layers: int,
    shift: np.float32,
    max_loss: float,
) -> None:
    inputs, between = np.empty(hidden, np.float32), np.empty(hidden // 2, np.float32)
    gates = np.empty(4 * hidden, np.float32)
    for entry in range(len(rows)):
        loss = losses[entry]
        if not math.isfinite(loss):
            continue
        run, state = table[rows[entry]], states[rows[entry]]
        choose(state, snapshot_at(steps[entry], run.horizon, run.snapshot, len(weights)), loss, run)
        inputs[0] = clip(loss, -max_loss, max_loss)
        chosen = weights[int(state[-2])]
        lrs[entry] = learning_rate(state, run, think(state, inputs, chosen, layers, shift, between, gates))


@compiled_background
def _advance_background(*arguments: Any) -> None:
    """Advance runs as `_advance`, while other threads go on."""
    _advance(*arguments)


@compiled
def choose(state: Vector, chosen: int, loss: float, run: Any) -> None:
    """Note the snapshot of a step; gamma is chosen anew for a run that is at it for the first time."""
    if state[-2] == chosen:
        return
    log_classes = run.log_classes
    if math.isnan(log_classes):
        log_classes = guess_log_classes(loss) if state[-2] < 0 else wide(state[-1])
    state[-3] = shu_gamma(loss, log_classes)
    state[-2] = chosen
    state[-1] = log_classes


@compiled
def learning_rate(state: Vector, run: Any, score: float) -> float:
    """Return the learning rate that the head's score stands for."""
    gamma = wide(state[-3]) if math.isnan(run.scale) else run.scale
    return gamma * sigmoid(score)


@compiled
def think(
    state: Vector,
    inputs: Vector,
    weights: Vector,
    layers: int,
    shift: np.float32,
    between: Vector,
    gates: Vector,
) -> float:
    """Advance all cells, their states in place, under the weights of a snapshot; return the head's score.

    Args:
        state: of the run.
        inputs: (H,), the loss in the first entry; overwritten.
        weights: (P,), as `packed` lays them out.
        layers: how many cells are stacked.
        shift: what is subtracted from the forget gates' preactivations.
        between: (H // 2,), overwritten.
        gates: (4 H,), overwritten.
    """
    hidden = len(inputs)
    offset, width = 0, 1
    for layer in range(layers):
        below = layer * hidden
        h = state[below : below + hidden]
        c = state[layers * hidden + below : layers * hidden + below + hidden]
        offset = _cell(inputs[:width], h, c, weights, offset, shift, between, gates)
        width = hidden
        copy_to(inputs, h)
    score: float = weights[offset + hidden]
    for unit in range(hidden):
        score += inputs[unit] * weights[offset + unit]
    return score


@compiled
def _cell(
    x: Vector,
    h: Vector,
    c: Vector,
    weights: Vector,
    offset: int,
    shift: np.float32,
    between: Vector,
    gates: Vector,
) -> int:
    """Advance one cell, h and c (H,) in place, with the weights from an offset on; return the next offset."""
    hidden = len(h)
    for gate in range(4 * hidden):
        gates[gate] = weights[offset + gate] + weights[offset + 4 * hidden + gate]
    for unit in range(hidden):
        gates[hidden + unit] -= shift
    offset += 8 * hidden
    offset = _perceptron(x, weights, offset, between, gates)
    offset = _perceptron(h, weights, offset, between, gates)
    for unit in range(hidden):
        kept = sigmoid(gates[hidden + unit]) * c[unit] + sigmoid(gates[unit]) * math.tanh(
            gates[3 * hidden + unit]
        )
        c[unit] = kept
        h[unit] = sigmoid(gates[2 * hidden + unit]) * math.tanh(kept)
    return offset


@compiled
def _perceptron(x: Vector, weights: Vector, offset: int, between: Vector, gates: Vector) -> int:
    """Add what a perceptron with one hidden layer of ReLUs gives to the gates; return the next offset."""
    half = len(between)
    copy_to(between, weights[offset : offset + half])
    offset += half
    for unit in range(len(x)):
        row = weights[offset : offset + half]
        for inner in range(half):
            between[inner] += x[unit] * row[inner]
        offset += half
    for inner in range(half):
        row = weights[offset : offset + len(gates)]
        if between[inner] > 0:
            for gate in range(len(gates)):
                gates[gate] += between[inner] * row[gate]
        offset += len(gates)
    return offset


def forget_shift(spec: PaperSpec) -> np.float32:
    """Return what the gate layout subtracts from the forget gates' preactivations."""
    return np.float32(spec.gate_layout == "ifog")


def packed(spec: PaperSpec, weights: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return the weights of a snapshot, (P,), in the order in which the kernel reads them."""
    order = _gate_order(spec.gate_layout, spec.hidden_size)
    parts = []
    for layer in range(spec.num_layers):
        i2h, h2h = (f"layers.{layer}.{name}" for name in ("i2h", "h2h"))
        parts += [weights[f"{i2h}.2.bias"][order], weights[f"{h2h}.2.bias"][order]]
        for net in (i2h, h2h):
            parts += [weights[f"{net}.0.bias"], weights[f"{net}.0.weight"].T]
            parts.append(weights[f"{net}.2.weight"][order].T)
    parts += [weights["head.weight"][0], weights["head.bias"]]
    return np.concatenate([np.ravel(part) for part in parts])


def _gate_order(layout: GateLayout, size: int) -> npt.NDArray[np.intp]:
    """Return the gate rows of a layout in the order i, f, o, g."""
    blocks = [layout.index(gate) for gate in "ifog"]
    return np.concatenate([np.arange(block * size, (block + 1) * size) for block in blocks])
