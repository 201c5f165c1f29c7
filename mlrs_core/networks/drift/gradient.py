"""How the drift network's aim moves with its weights: one tick, forwards and backwards."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mlrs_core.compiled import compiled, sigmoid, wide
from mlrs_core.networks.drift.constants import FEATURES
from mlrs_core.networks.drift.kernel import aim_of
from mlrs_core.policy import Floats

Vector = npt.NDArray[np.float32]


@compiled
def forwards(cell: Vector, features: Floats, weights: Vector, fixed: Any, seen: Floats) -> float:
    """Return where the head aims at a tick, and fill what the cell computed.

    Args:
        cell: hidden and cell state before the tick, (2 H,).
        features: what the cell sees, (FEATURES,).
        weights: (P,).
        fixed: the model's constants, a record of `CONSTANTS`.
        seen: (7 * H + 2,), filled: gates (i, f, o, g), cell state, its tanh, hidden state, the head's two.
    """
    size = len(cell) // 2
    gates, offset = seen[: 4 * size], (FEATURES + size) * 4 * size
    for gate in range(4 * size):
        gates[gate] = weights[offset + gate]
    for source in range(FEATURES + size):
        value = features[source] if source < FEATURES else wide(cell[source - FEATURES])
        row = weights[source * 4 * size : (source + 1) * 4 * size]
        for gate in range(4 * size):
            gates[gate] += value * row[gate]
    head = weights[offset + 4 * size :]
    base, shut = wide(head[size]), wide(head[2 * size + 1])
    for unit in range(size):
        gates[unit] = sigmoid(gates[unit])
        gates[size + unit] = sigmoid(gates[size + unit] + fixed.forget_bias)
        gates[2 * size + unit] = sigmoid(gates[2 * size + unit])
        gates[3 * size + unit] = math.tanh(gates[3 * size + unit])
        kept = gates[size + unit] * wide(cell[size + unit]) + gates[unit] * gates[3 * size + unit]
        seen[4 * size + unit], seen[5 * size + unit] = kept, math.tanh(kept)
        hidden = gates[2 * size + unit] * seen[5 * size + unit]
        seen[6 * size + unit] = hidden
        base += hidden * head[unit]
        shut += hidden * head[size + 1 + unit]
    seen[7 * size], seen[7 * size + 1] = base, shut
    return aim_of(base, shut, fixed)


@compiled
def backwards(
    cell: Vector, features: Floats, weights: Vector, fixed: Any, seen: Floats, gradient: Floats
) -> None:
    """Fill the gradient, (P,), of the aim that `forwards` returned."""
    size = len(cell) // 2
    offset = (FEATURES + size) * 4 * size
    out = offset + 4 * size
    base = fixed.reach
    shut = fixed.gate_slope * sigmoid(-(fixed.gate_slope * seen[7 * size + 1] + fixed.gate_start))
    slopes = gradient[offset : offset + 4 * size]
    for unit in range(size):
        take, forget = seen[unit], seen[size + unit]
        show, new = seen[2 * size + unit], seen[3 * size + unit]
        level, hidden = seen[5 * size + unit], seen[6 * size + unit]
        gradient[out + unit] = base * hidden
        gradient[out + size + 1 + unit] = shut * hidden
        upper = base * weights[out + unit] + shut * weights[out + size + 1 + unit]
        inner = upper * show * (1 - level * level)
        slopes[unit] = inner * new * take * (1 - take)
        slopes[size + unit] = inner * wide(cell[size + unit]) * forget * (1 - forget)
        slopes[2 * size + unit] = upper * level * show * (1 - show)
        slopes[3 * size + unit] = inner * take * (1 - new * new)
    gradient[out + size], gradient[out + 2 * size + 1] = base, shut
    for source in range(FEATURES + size):
        value = features[source] if source < FEATURES else wide(cell[source - FEATURES])
        row = gradient[source * 4 * size : (source + 1) * 4 * size]
        for gate in range(4 * size):
            row[gate] = value * slopes[gate]


@compiled
def scratch(hidden: int) -> Floats:
    """Return an array for what a cell with H hidden units computes."""
    return np.empty(7 * hidden + 2)
