"""The drift network as a NumPy kernel: a batch of runs in one go, batch-invariant.

Everything is computed in double precision and kept in single: differences of moving averages in units
of the noise magnify last bits. What a run
remembers besides its cell is worked on with runs as columns, so that each entry is contiguous:
NumPy's functions round strided rows and contiguous ones differently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlrs_core.architectures.architecture import Weights
from mlrs_core.architectures.drift.spec import (
    EXTRAS,
    FALL,
    FIRST_TICKS,
    FIRST_VARIANCE,
    FLOOR,
    JUMP,
    LOSS_FEATURES,
    MAX_DRIFT,
    MAX_LEVEL,
    MAX_REF,
    MAX_START,
    MIN_DRIFT,
    MIN_REF,
    OWN_FEATURES,
    PROGRESS_FEATURES,
    REACH,
    RISE,
    SCALES,
    SOFT_STEPS,
    TICKS,
    TIME_CONSTANTS,
    VARIANCE_RATE,
    WARMUP,
    DriftSpec,
)
from mlrs_core.architectures.tiles import blocks, padded, product, sigmoid
from mlrs_core.policy import Floats, RunColumns, States, Steps
from mlrs_core.snapshots import choose_snapshots
from mlrs_core.usual import IS_ADAM, IS_MOMENTUM, usual_lrs

VARIANCE, BEST, SUM, COUNT, AGE, HIGH, LOW, REF, MODE = range(SCALES, EXTRAS)
"""Entries of what a run remembers, after the averages. AGE counts ticks; HIGH + LOW is the log-LR over
the usual one; MODE is 0 before the first loss, then 1 if that was positive, else 2."""
_FAST, _SLOW = TIME_CONSTANTS
_RATES = 1 - np.exp(-1 / (_FAST * (_SLOW / _FAST) ** (np.arange(SCALES) / (SCALES - 1))))[:, None]


@dataclass(frozen=True)
class _Snapshot:
    """The weights of one snapshot, transposed."""

    cell: Floats
    cell_bias: Floats
    head: Floats
    head_bias: Floats

    @classmethod
    def of(cls, weights: Weights) -> _Snapshot:
        """Return the weights, laid out for the kernel."""
        wide = {name: weight.astype(np.float64) for name, weight in weights.items()}
        cell = np.ascontiguousarray(wide["cell.weight"].T)
        return cls(cell, wide["cell.bias"], wide["head.weight"], wide["head.bias"])


class DriftKernel:
    """`Policy` of the drift network.

    A run's state is a row of `2 * H + EXTRAS` floats: hidden state, cell state, and what it remembers.
    """

    def __init__(self, spec: DriftSpec, snapshots: Sequence[Weights]) -> None:
        """Lay out the weights of one or more snapshots for the kernel."""
        self._hidden = spec.hidden_size
        self._size = spec.state_size
        self._mask = None if spec.inputs == "all" else np.array(spec.feature_mask())
        self._jumps = spec.inputs != "progress"
        self._snapshots = tuple(_Snapshot.of(weights) for weights in snapshots)

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
        extras = np.ascontiguousarray(states[:, recurrent:].T, np.float64)
        usual = usual_lrs(runs)
        x = _take_in(extras, losses, usual, runs)
        ticking = _is_due(extras, steps, runs)
        if self._jumps:
            ticking |= _jump(extras, x)
        after = states.copy()
        if ticking.all():
            after[:, :recurrent] = self._tick(states, steps, extras, usual, runs)
        elif ticking.any():
            rows = np.flatnonzero(ticking)
            some = np.ascontiguousarray(extras[:, rows])
            after[rows, :recurrent] = self._tick(
                states[rows], steps[rows], some, usual[rows], runs.take(rows)
            )
            extras[:, rows] = some
        after[:, recurrent:] = extras.T
        return usual * np.exp(extras[HIGH] + extras[LOW]), after

    def _tick(self, states: States, steps: Steps, extras: Floats, usual: Floats, runs: RunColumns) -> States:
        """Make a tick of every run: change extras in place, return the cells' new states."""
        mean = _remember(extras)
        features = _features(extras, mean, steps, usual, runs)
        if self._mask is not None:
            features *= self._mask
        chosen = choose_snapshots(steps, runs.horizon, runs.snapshot, len(self._snapshots))
        cells, heads = np.empty((len(mean), 2 * self._hidden), np.float32), np.empty((2, len(mean)))
        for index, block in blocks(chosen, len(self._snapshots)):
            inputs = np.column_stack([features[block], states[block, : self._hidden]])
            memory = padded(states[block, self._hidden : 2 * self._hidden].astype(np.float64))
            cells[block], heads[:, block] = self._advance(
                self._snapshots[index], padded(inputs), memory, len(block)
            )
        aim = REACH * heads[0] - np.logaddexp(0, -(4 * heads[1] + 3))
        drift = extras[HIGH] + extras[LOW]
        drift = np.clip(drift + np.clip(aim - drift, -FALL, RISE), MIN_DRIFT, MAX_DRIFT)
        extras[HIGH] = _single(drift)
        extras[LOW] = _single(drift - extras[HIGH])
        return cells

    def _advance(
        self, snapshot: _Snapshot, inputs: Floats, memory: Floats, count: int
    ) -> tuple[States, Floats]:
        """Advance whole tiles; return the cells' states and the heads, (2, count), of `count` rows."""
        size = self._hidden
        gates = product(inputs, snapshot.cell) + snapshot.cell_bias
        take = sigmoid(np.ascontiguousarray(gates[:, :size]))
        forget = sigmoid(np.ascontiguousarray(gates[:, size : 2 * size]) + 1)
        out = sigmoid(np.ascontiguousarray(gates[:, 2 * size : 3 * size]))
        memory = forget * memory + take * np.tanh(np.ascontiguousarray(gates[:, 3 * size :]))
        hidden = out * np.tanh(memory)
        heads = (hidden[:, None, :] * snapshot.head).sum(axis=2) + snapshot.head_bias
        return np.column_stack([hidden, memory])[:count].astype(np.float32), heads[:count].T


def _take_in(extras: Floats, losses: Floats, usual: Floats, runs: RunColumns) -> Floats:
    """Add a loss up, in place; return it on the scale of x, (n,)."""
    first = extras[MODE] == 0
    begins = first.any()
    if begins:
        unknown = np.isnan(runs.log_classes)
        ref = np.where(unknown, np.clip(np.abs(losses), MIN_REF, MAX_REF), runs.log_classes)
        extras[REF] = np.where(first, _single(ref), extras[REF])
        extras[MODE] = np.where(first, np.where(losses > 0, 1.0, 2.0), extras[MODE])
        begin = _single(_first_drift(usual, runs) - math.log(WARMUP))
        extras[HIGH] = np.where(first, begin, extras[HIGH])
    most = MAX_LEVEL * extras[REF]
    u = np.clip(losses, -most, most) / extras[REF]
    x: Floats = np.log(np.maximum(u, 0) + FLOOR)
    if not (extras[MODE] == 1).all() or (u < 0).any():
        x = np.where(extras[MODE] == 1, x - np.arcsinh(np.maximum(-u, 0)), np.arcsinh(u))
    if begins:
        extras[:SCALES] = np.where(first, x, extras[:SCALES])
    extras[SUM] = _single(extras[SUM] + x)
    extras[COUNT] += 1
    return x


def _is_due(extras: Floats, steps: Steps, runs: RunColumns) -> npt.NDArray[np.bool_]:
    """Return whether it is time for a tick, (n,): after the first loss, and then as the spec says."""
    spacing = np.minimum(steps // FIRST_TICKS, -(-_effective_horizon(steps, runs) // TICKS))
    due: npt.NDArray[np.bool_] = (extras[COUNT] >= spacing) | (extras[AGE] == 0)
    return due


def _jump(extras: Floats, x: Floats) -> npt.NDArray[np.bool_]:
    """Return where a loss jumped, (n,); it then is all that the tick sees: in place."""
    jump: npt.NDArray[np.bool_] = x > extras[0] + JUMP
    if jump.any():
        extras[SUM] = np.where(jump, _single(x), extras[SUM])
        extras[COUNT] = np.where(jump, 1.0, extras[COUNT])
    return jump


def _effective_horizon(steps: Steps, runs: RunColumns) -> Steps:
    """Return the horizon, (n,); an unknown one counts as twice the steps so far."""
    return np.where(runs.horizon > 0, runs.horizon, np.maximum(2 * (steps + 1), 100))


def _remember(extras: Floats) -> Floats:
    """Take in the losses since the last tick, in place; return their mean, (n,)."""
    mean: Floats = extras[SUM] / extras[COUNT]
    extras[AGE] += 1
    age = extras[AGE]
    first = age == 1
    variance = np.where(first, FIRST_VARIANCE, extras[VARIANCE])
    change = (mean - extras[1]) ** 2 - variance
    extras[VARIANCE] = _single(variance + np.maximum(1 / (age + 1), VARIANCE_RATE) * change)
    averages = extras[:SCALES]
    extras[:SCALES] = _single(averages + np.maximum(1 / age, _RATES) * (mean - averages))
    extras[BEST] = np.where(first, extras[2], np.minimum(extras[BEST], extras[2]))
    extras[SUM] = extras[COUNT] = 0
    return mean


def _single(values: Floats) -> Floats:
    """Return values rounded to what single precision holds."""
    rounded: Floats = values.astype(np.float32).astype(np.float64)
    return rounded


def _features(extras: Floats, mean: Floats, steps: Steps, usual: Floats, runs: RunColumns) -> Floats:
    """Return the features, (n, FEATURES)."""
    noise = np.sqrt(extras[VARIANCE]) + 1e-4
    slopes = extras[: SCALES - 1] - extras[1:SCALES]
    above = extras[1] - extras[BEST]
    horizon = _effective_horizon(steps, runs).astype(np.float64)
    known = (runs.horizon > 0).astype(np.float64)
    drift = extras[HIGH] + extras[LOW]
    rows = np.empty((LOSS_FEATURES + PROGRESS_FEATURES + OWN_FEATURES, len(mean)))
    rows[0] = np.clip(mean, -3, 2)
    rows[1] = 0.2 * np.clip(mean, -10, 5)
    rows[2:7] = 3 * np.clip(slopes, -1, 1)
    rows[7:12] = np.tanh(slopes / noise)
    rows[12] = np.clip(above, -1, 2)
    rows[13] = np.tanh(above / noise)
    rows[14] = 0.5 * np.log(noise) + 1
    rows[15:24] = known * np.tanh(10 * (steps / horizon - np.array(SOFT_STEPS)[:, None]))
    rows[24] = known
    rows[25] = np.tanh(0.7 * np.log10(horizon / 500))
    rows[26] = np.tanh(0.7 * np.log10((steps + 1.0) / 30))
    rows[27] = 0.3 * drift
    rows[28] = 0.3 * (drift - _first_drift(usual, runs))
    rows[29] = IS_MOMENTUM[runs.optimizer]
    rows[30] = IS_ADAM[runs.optimizer]
    rows[31] = ~np.isnan(runs.log_classes)
    return np.ascontiguousarray(rows.T)


def _first_drift(usual: Floats, runs: RunColumns) -> Floats:
    """Return the log of the initial LR over the usual one, (n,), 0 where not given."""
    given = np.where(np.isnan(runs.initial_lr), usual, np.maximum(runs.initial_lr, 1e-30))
    return _single(np.clip(np.log(given / usual), -MAX_START, MAX_START))
