"""The drift network as a NumPy kernel: a batch of runs in one go, batch-invariant.

Everything is computed in double precision and kept in single: differences of moving averages in units
of the noise magnify last bits, and the log-LR adds them up over thousands of steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from mlrs_core.architectures.architecture import Weights
from mlrs_core.architectures.drift.spec import (
    ADAM_FAMILY,
    EXTRAS,
    MAX_DRIFT,
    MOMENTUM_FAMILY,
    SCALES,
    SOFT_STEPS,
    DriftSpec,
)
from mlrs_core.architectures.tiles import blocks, padded, product, sigmoid
from mlrs_core.policy import Floats, RunColumns, States, Steps
from mlrs_core.snapshots import choose_snapshots

MAX_LEVEL = 1e4
"""The loss over its reference counts within plus and minus this."""


@dataclass(frozen=True)
class _Snapshot:
    """The weights of one snapshot, transposed."""

    cell: Floats
    cell_bias: Floats
    head: Floats
    head_bias: Floats


@dataclass
class _Extras:
    """What a run remembers besides its cell, float64; the fields in the order of the state."""

    averages: Floats
    """(n, SCALES)."""
    variance: Floats
    drift_high: Floats
    """The log-LR over the usual one, rounded to single precision; and"""
    drift_low: Floats
    """what the rounding left."""
    ref: Floats
    mode: Floats
    """0: no loss yet; 1: the first loss was positive; 2: it was not."""

    @classmethod
    def of(cls, rows: States) -> _Extras:
        """Return extras of states' rows, (n, EXTRAS)."""
        wide = rows.astype(np.float64)
        singles = (np.ascontiguousarray(wide[:, at]) for at in range(SCALES, EXTRAS))
        return cls(np.ascontiguousarray(wide[:, :SCALES]), *singles)

    def rows(self) -> States:
        """Return the extras as states' rows."""
        singles = [getattr(self, field.name) for field in fields(self)[1:]]
        return np.column_stack([self.averages, *singles]).astype(np.float32)


class DriftKernel:
    """`Policy` of the drift network.

    A run's state is a row of `2 * H + EXTRAS` floats: hidden state, cell state, and `_Extras`.
    """

    def __init__(self, spec: DriftSpec, snapshots: Sequence[Weights]) -> None:
        """Lay out the weights of one or more snapshots for the kernel."""
        self._hidden = spec.hidden_size
        self._size = spec.state_size
        self._snapshots = tuple(_load(weights) for weights in snapshots)

    @property
    def state_size(self) -> int:
        """The length of a run's state."""
        return self._size

    def init_state(self, n: int) -> States:
        """Return the states of n runs before their first step, (n, state_size) float32."""
        return np.zeros((n, self._size), np.float32)

    def step(self, states: States, steps: Steps, losses: Floats, runs: RunColumns) -> tuple[Floats, States]:
        """Advance n runs by one step; see `Policy.step`."""
        recurrent = 2 * self._hidden
        horizon = _effective_horizon(steps, runs)
        extras = _Extras.of(states[:, recurrent:])
        _remember(extras, losses, horizon, runs)
        features = _features(extras, losses, steps, horizon, runs)
        chosen = choose_snapshots(steps, runs.horizon, runs.snapshot, len(self._snapshots))
        cells, heads = np.empty((len(losses), recurrent), np.float32), np.empty((len(losses), 2))
        for index, block in blocks(chosen, len(self._snapshots)):
            inputs = np.column_stack([features[block], states[block, : self._hidden]])
            memory = padded(states[block, self._hidden : recurrent].astype(np.float64))
            cells[block], heads[block] = self._advance(
                self._snapshots[index], padded(inputs), memory, len(block)
            )
        drift = extras.drift_high + extras.drift_low + _move(horizon) * np.tanh(heads[:, 0].copy())
        drift = np.clip(drift, -MAX_DRIFT, MAX_DRIFT)
        extras.drift_high = drift.astype(np.float32).astype(np.float64)
        extras.drift_low = drift - extras.drift_high
        lrs = _usual_lr(runs) * np.exp(drift) * sigmoid(4 * heads[:, 1] + 3)
        return lrs, np.column_stack([cells, extras.rows()])

    def _advance(
        self, snapshot: _Snapshot, inputs: Floats, memory: Floats, count: int
    ) -> tuple[States, Floats]:
        """Advance whole tiles; return the cell's state and the head's two numbers of `count` rows."""
        size = self._hidden
        gates = product(inputs, snapshot.cell) + snapshot.cell_bias
        take = sigmoid(np.ascontiguousarray(gates[:, :size]))
        forget = sigmoid(np.ascontiguousarray(gates[:, size : 2 * size]) + 1)
        out = sigmoid(np.ascontiguousarray(gates[:, 2 * size : 3 * size]))
        memory = forget * memory + take * np.tanh(np.ascontiguousarray(gates[:, 3 * size :]))
        hidden = out * np.tanh(memory)
        heads = (hidden[:, None, :] * snapshot.head).sum(axis=2) + snapshot.head_bias
        return np.column_stack([hidden, memory])[:count].astype(np.float32), heads[:count]


def _remember(extras: _Extras, losses: Floats, horizon: Floats, runs: RunColumns) -> None:
    """Take in a loss, in place."""
    first = extras.mode == 0
    unknown = np.isnan(runs.log_classes)
    fresh = np.where(unknown, np.maximum(np.abs(losses), 1e-8), runs.log_classes)
    extras.ref = np.where(first, _single(fresh), extras.ref)
    extras.mode = np.where(first, np.where(losses > 0, 1.0, 2.0), extras.mode)
    x = _level(losses, extras)
    extras.averages = np.where(first[:, None], x[:, None], extras.averages)
    extras.variance = np.where(first, 0.01, extras.variance)
    extras.drift_high = np.where(first, _first_drift(runs), extras.drift_high)
    variance = 0.95 * extras.variance + 0.05 * (x - extras.averages[:, 1]) ** 2
    extras.averages = _single(extras.averages + _rates(horizon) * (x[:, None] - extras.averages))
    extras.variance = _single(variance)


def _single(values: Floats) -> Floats:
    """Return values rounded to what single precision holds; beyond its range, its largest."""
    largest = float(np.finfo(np.float32).max)
    rounded: Floats = np.clip(values, -largest, largest).astype(np.float32).astype(np.float64)
    return rounded


def _level(losses: Floats, extras: _Extras) -> Floats:
    """Return the loss on a logarithmic scale: x of the spec."""
    most = MAX_LEVEL * extras.ref
    u = np.clip(losses, -most, most) / extras.ref
    positive = np.log(np.maximum(u, 0) + 1e-3) - np.arcsinh(np.maximum(-u, 0))
    return np.where(extras.mode == 1, positive, np.arcsinh(u))


def _effective_horizon(steps: Steps, runs: RunColumns) -> Floats:
    """Return the horizon, (n,); an unknown one counts as twice the steps so far."""
    return np.where(runs.horizon > 0, runs.horizon, np.maximum(2 * (steps + 1), 100)).astype(np.float64)


def _rates(horizon: Floats) -> Floats:
    """Return how fast each average follows, (n, SCALES)."""
    spread = np.log(np.maximum(horizon / 3, 30) / 3)
    rates: Floats = np.exp(-spread[:, None] * (np.arange(SCALES) / (SCALES - 1))) / 3
    return rates


def _move(horizon: Floats) -> Floats:
    """Return how far the log-LR can go in a step, (n,)."""
    move: Floats = 0.15 * np.clip(np.sqrt(300 / horizon), 0.15, 1)
    return move


def _features(
    extras: _Extras, losses: Floats, steps: Steps, horizon: Floats, runs: RunColumns
) -> npt.NDArray[np.float64]:
    """Return the features, (n, FEATURES)."""
    deviation = np.sqrt(extras.variance)
    slopes = extras.averages[:, :-1] - extras.averages[:, 1:]
    known = (runs.horizon > 0).astype(np.float64)
    columns: list[Any] = [
        np.clip(_level(losses, extras), -3, 2),
        3 * np.clip(slopes, -1, 1),
        np.tanh(slopes / (deviation[:, None] + 1e-3)),
        known[:, None] * np.tanh(10 * ((steps / horizon)[:, None] - np.array(SOFT_STEPS))),
        0.5 * np.log(deviation + 1e-4) + 1,
        0.3 * (extras.drift_high + extras.drift_low),
        np.isin(runs.optimizer, MOMENTUM_FAMILY),
        np.isin(runs.optimizer, ADAM_FAMILY),
        0.5 * np.log10(horizon) - 1.3,
        known,
        ~np.isnan(runs.log_classes),
        0.5 * np.log10(steps + 1.0) - 1,
    ]
    return np.column_stack(columns)


def _usual_lr(runs: RunColumns) -> Floats:
    """Return where a family usually starts, (n,): 0.1 in effective units for SGD, 1e-3 for Adam."""
    momentum = np.clip(np.where(np.isnan(runs.momentum), 0.9, runs.momentum), 0, 0.999)
    usual = np.where(np.isin(runs.optimizer, MOMENTUM_FAMILY), 0.1 * (1 - momentum), 0.1)
    return np.where(np.isin(runs.optimizer, ADAM_FAMILY), 1e-3, usual)


def _first_drift(runs: RunColumns) -> Floats:
    """Return the log of the initial LR over the usual one, (n,), 0 where not given."""
    given = np.where(np.isnan(runs.initial_lr), _usual_lr(runs), np.maximum(runs.initial_lr, 1e-30))
    return _single(np.clip(np.log(given / _usual_lr(runs)), -MAX_DRIFT, MAX_DRIFT))


def _load(weights: Weights) -> _Snapshot:
    wide = {name: weight.astype(np.float64) for name, weight in weights.items()}
    cell = np.ascontiguousarray(wide["cell.weight"].T)
    return _Snapshot(cell, wide["cell.bias"], wide["head.weight"], wide["head.bias"])
