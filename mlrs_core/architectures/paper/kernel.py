"""The paper's network as a NumPy kernel: a batch of runs in one go, batch-invariant.

Products go through `tiles.product`, a fixed number of rows at a time; everything else is elementwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlrs_core.architectures.architecture import Weights
from mlrs_core.architectures.paper.spec import GateLayout, PaperSpec
from mlrs_core.architectures.tiles import Matrix, blocks, padded, product, sigmoid
from mlrs_core.policy import Floats, RunColumns, States, Steps
from mlrs_core.scale import guess_log_classes, shu_gamma
from mlrs_core.snapshots import choose_snapshots

MAX_LOSS = 1e6
"""Losses enter the network within plus and minus this: beyond it float32 products overflow."""


@dataclass(frozen=True)
class _Cell:
    """The weights of one layer, transposed, with gate columns in the order i, f, o, g."""

    input_in: Matrix
    input_bias: Matrix
    input_out: Matrix
    hidden_in: Matrix
    hidden_bias: Matrix
    hidden_out: Matrix
    gate_bias: Matrix


@dataclass(frozen=True)
class _Snapshot:
    """The weights of one snapshot."""

    cells: tuple[_Cell, ...]
    head: Matrix
    head_bias: np.float32


class PaperKernel:
    """`Policy` of the paper's network.

    A run's state is a row of `2 * num_layers * H + 3` floats: hidden states, cell states, gamma,
    the snapshot that gamma was chosen at (-1 before the first step), and ln C.
    """

    def __init__(self, spec: PaperSpec, snapshots: Sequence[Weights]) -> None:
        """Lay out the weights of one or more snapshots for the kernel."""
        self._hidden = spec.hidden_size
        self._layers = spec.num_layers
        self._snapshots = tuple(_load(spec, weights) for weights in snapshots)
        self._cells_at = spec.num_layers * spec.hidden_size
        self._gamma_at = 2 * self._cells_at
        self._chosen_at = self._gamma_at + 1
        self._classes_at = self._gamma_at + 2

    @property
    def state_size(self) -> int:
        """The length of a run's state."""
        return self._gamma_at + 3

    def init_state(self, n: int) -> States:
        """Return the states of n runs before their first step, (n, state_size) float32."""
        states = np.zeros((n, self.state_size), np.float32)
        states[:, self._chosen_at] = -1
        return states

    def step(self, states: States, steps: Steps, losses: Floats, runs: RunColumns) -> tuple[Floats, States]:
        """Advance n runs by one step; see `Policy.step`."""
        chosen = choose_snapshots(steps, runs.horizon, runs.snapshot, len(self._snapshots))
        moved = states.copy()
        self._rescale(moved, chosen, losses, runs)
        inputs = np.clip(losses, -MAX_LOSS, MAX_LOSS).astype(np.float32)
        sigma = np.empty(len(losses), np.float32)
        for index, block in blocks(chosen, len(self._snapshots)):
            state = padded(moved[block, : self._gamma_at])
            advanced = self._advance(self._snapshots[index], padded(inputs[block, None]), state)
            sigma[block] = advanced[: len(block)]
            moved[block, : self._gamma_at] = state[: len(block)]
        gamma = np.where(np.isnan(runs.scale), moved[:, self._gamma_at], runs.scale)
        return gamma * sigma, moved

    def _rescale(self, states: States, chosen: Steps, losses: Floats, runs: RunColumns) -> None:
        """Choose gamma anew for the runs that are at a snapshot for the first time.

        A scalar loop: a run comes here once per snapshot, and scalars make it batch-invariant.
        """
        for row in np.flatnonzero(states[:, self._chosen_at] != chosen):
            loss, log_classes = float(losses[row]), float(runs.log_classes[row])
            if math.isnan(log_classes):
                first = states[row, self._chosen_at] < 0
                guess = guess_log_classes(loss) if first else float(states[row, self._classes_at])
                log_classes = guess
            states[row, self._gamma_at] = shu_gamma(loss, log_classes)
            states[row, self._chosen_at] = chosen[row]
            states[row, self._classes_at] = log_classes

    def _advance(self, snapshot: _Snapshot, x: Matrix, state: Matrix) -> Matrix:
        """Advance whole tiles: x (m, 1), state (m, 2 L H) changed in place; sigma (m,)."""
        size = self._hidden
        for layer, cell in enumerate(snapshot.cells):
            hidden = state[:, layer * size : (layer + 1) * size]
            memory = state[:, self._cells_at + layer * size : self._cells_at + (layer + 1) * size]
            gates = product(_relu(product(x, cell.input_in) + cell.input_bias), cell.input_out)
            gates += product(_relu(product(hidden, cell.hidden_in) + cell.hidden_bias), cell.hidden_out)
            gates += cell.gate_bias
            opened = sigmoid(np.ascontiguousarray(gates[:, : 3 * size]))
            memory[:] = opened[:, size : 2 * size] * memory + opened[:, :size] * np.tanh(
                np.ascontiguousarray(gates[:, 3 * size :])
            )
            hidden[:] = opened[:, 2 * size :] * np.tanh(np.ascontiguousarray(memory))
            x = np.ascontiguousarray(hidden)
        scores: Matrix = (x * snapshot.head).sum(axis=1) + snapshot.head_bias
        return sigmoid(scores)


def _relu(x: Matrix) -> Matrix:
    return np.maximum(x, np.float32(0))


def _load(spec: PaperSpec, weights: Weights) -> _Snapshot:
    order = _gate_order(spec.gate_layout, spec.hidden_size)
    cells = []
    for layer in range(spec.num_layers):
        i2h, h2h = (f"layers.{layer}.{name}" for name in ("i2h", "h2h"))
        bias = weights[f"{i2h}.2.bias"] + weights[f"{h2h}.2.bias"]
        if spec.gate_layout == "ifog":
            bias[spec.hidden_size : 2 * spec.hidden_size] -= 1
        cells.append(
            _Cell(
                input_in=_transposed(weights[f"{i2h}.0.weight"]),
                input_bias=weights[f"{i2h}.0.bias"],
                input_out=_transposed(weights[f"{i2h}.2.weight"][order]),
                hidden_in=_transposed(weights[f"{h2h}.0.weight"]),
                hidden_bias=weights[f"{h2h}.0.bias"],
                hidden_out=_transposed(weights[f"{h2h}.2.weight"][order]),
                gate_bias=bias[order],
            )
        )
    return _Snapshot(tuple(cells), weights["head.weight"][0], np.float32(weights["head.bias"][0]))


def _gate_order(layout: GateLayout, size: int) -> npt.NDArray[np.intp]:
    """Return the gate rows of a layout in the order i, f, o, g."""
    blocks = [layout.index(gate) for gate in "ifog"]
    return np.concatenate([np.arange(block * size, (block + 1) * size) for block in blocks])


def _transposed(weight: Matrix) -> Matrix:
    return np.ascontiguousarray(weight.T)
