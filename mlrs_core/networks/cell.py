"""One LSTM cell with a head of two numbers, as the kernels of the drift and the tail network compute it.

The weights of a snapshot are one row, (P,), as `packed` lays them out: the cell's weights, a row for each
input (features first, then hidden units) of 4 H numbers in the order i, f, o, g; its biases, (4 H,); and for
each of the head's two numbers H weights and a bias.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mlrs_core.compiled import compiled, copy_to, sigmoid, wide
from mlrs_core.policy import Floats

Vector = npt.NDArray[np.float32]


def packed(weights: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return the weights of a snapshot, (P,), in the order in which the kernels read them."""
    head = np.column_stack([weights["head.weight"], weights["head.bias"]])
    return np.concatenate([weights["cell.weight"].T.ravel(), weights["cell.bias"], head.ravel()])


@compiled
def think(
    cell: Vector, features: Floats, weights: Vector, forget_bias: float, gates: Floats
) -> tuple[float, float]:
    """Advance a cell by a step; return the head's two numbers.

    Args:
        cell: hidden and cell state, (2 H,); moved.
        features: what the cell sees.
        weights: (P,).
        forget_bias: added to the forget gates' preactivations.
        gates: (4 H,), overwritten.
    """
    size = len(cell) // 2
    offset = (len(features) + size) * 4 * size
    copy_to(gates, weights[offset : offset + 4 * size])
    for feature in range(len(features)):
        row = weights[feature * 4 * size : (feature + 1) * 4 * size]
        for gate in range(4 * size):
            gates[gate] += features[feature] * row[gate]
    for unit in range(size):
        before = wide(cell[unit])
        row = weights[(len(features) + unit) * 4 * size : (len(features) + unit + 1) * 4 * size]
        for gate in range(4 * size):
            gates[gate] += before * row[gate]
    head = weights[offset + 4 * size :]
    first, second = wide(head[size]), wide(head[2 * size + 1])
    for unit in range(size):
        take, forget = sigmoid(gates[unit]), sigmoid(gates[size + unit] + forget_bias)
        kept = forget * wide(cell[size + unit]) + take * math.tanh(gates[3 * size + unit])
        hidden = sigmoid(gates[2 * size + unit]) * math.tanh(kept)
        cell[unit], cell[size + unit] = hidden, kept
        first += hidden * head[unit]
        second += hidden * head[size + 1 + unit]
    return first, second


@compiled
def forwards(
    cell: Vector, features: Floats, weights: Vector, forget_bias: float, seen: Floats
) -> tuple[float, float]:
    """Return the head's two numbers at a step, and fill what the cell computed.

    Args:
        cell: hidden and cell state before the step, (2 H,).
        features: what the cell sees.
        weights: (P,).
        forget_bias: added to the forget gates' preactivations.
        seen: (7 H,), filled: gates (i, f, o, g), cell state, its tanh, hidden state.
    """
    size = len(cell) // 2
    gates, offset = seen[: 4 * size], (len(features) + size) * 4 * size
    for gate in range(4 * size):
        gates[gate] = weights[offset + gate]
    for source in range(len(features) + size):
        value = features[source] if source < len(features) else wide(cell[source - len(features)])
        row = weights[source * 4 * size : (source + 1) * 4 * size]
        for gate in range(4 * size):
            gates[gate] += value * row[gate]
    head = weights[offset + 4 * size :]
    first, second = wide(head[size]), wide(head[2 * size + 1])
    for unit in range(size):
        gates[unit] = sigmoid(gates[unit])
        gates[size + unit] = sigmoid(gates[size + unit] + forget_bias)
        gates[2 * size + unit] = sigmoid(gates[2 * size + unit])
        gates[3 * size + unit] = math.tanh(gates[3 * size + unit])
        kept = gates[size + unit] * wide(cell[size + unit]) + gates[unit] * gates[3 * size + unit]
        seen[4 * size + unit], seen[5 * size + unit] = kept, math.tanh(kept)
        hidden = gates[2 * size + unit] * seen[5 * size + unit]
        seen[6 * size + unit] = hidden
        first += hidden * head[unit]
        second += hidden * head[size + 1 + unit]
    return first, second


@compiled
def backwards(
    cell: Vector,
    features: Floats,
    weights: Vector,
    seen: Floats,
    slopes: tuple[float, float],
    gradient: Floats,
) -> None:
    """Fill the gradient, (P,), of a number that moves by `slopes` with the head's two.

    Args:
        cell: as `forwards` had it.
        features: as `forwards` had them.
        weights: (P,).
        seen: as `forwards` filled it.
        slopes: the derivatives of the number by the head's two.
        gradient: (P,), filled.
    """
    size = len(cell) // 2
    offset = (len(features) + size) * 4 * size
    out = offset + 4 * size
    first, second = slopes
    inward = gradient[offset : offset + 4 * size]
    for unit in range(size):
        take, forget = seen[unit], seen[size + unit]
        show, new = seen[2 * size + unit], seen[3 * size + unit]
        level, hidden = seen[5 * size + unit], seen[6 * size + unit]
        gradient[out + unit] = first * hidden
        gradient[out + size + 1 + unit] = second * hidden
        upper = first * weights[out + unit] + second * weights[out + size + 1 + unit]
        inner = upper * show * (1 - level * level)
        inward[unit] = inner * new * take * (1 - take)
        inward[size + unit] = inner * wide(cell[size + unit]) * forget * (1 - forget)
        inward[2 * size + unit] = upper * level * show * (1 - show)
        inward[3 * size + unit] = inner * take * (1 - new * new)
    gradient[out + size], gradient[out + 2 * size + 1] = first, second
    for source in range(len(features) + size):
        value = features[source] if source < len(features) else wide(cell[source - len(features)])
        row = gradient[source * 4 * size : (source + 1) * 4 * size]
        for gate in range(4 * size):
            row[gate] = value * inward[gate]


@compiled
def scratch(hidden: int) -> Floats:
    """Return an array for what a cell with H hidden units computes."""
    return np.empty(7 * hidden)
