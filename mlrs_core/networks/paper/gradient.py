"""How the paper's network's learning rate moves with its weights: one step, forwards and backwards.

In double precision, over the weights in single that the kernel reads, in its order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mlrs_core.compiled import compiled, copy_to, sigmoid, wide
from mlrs_core.policy import Floats

Vector = npt.NDArray[np.float32]
Values = npt.NDArray[np.floating[Any]]
"""Numbers of either precision."""
HIDDEN, CELL, GATES, FIRST, SECOND = 0, 1, 2, 6, 7
"""Columns of what a layer computes, in units of H: hidden state, cell state, gates (i, f, o, g), and what
its two perceptrons have between."""
COLUMNS = 8


@compiled
def forwards(trace: Vector, weights: Vector, layers: int, hidden: int, shift: float, seen: Floats) -> float:
    """Return the head's score of a step, and fill what each layer computed.

    Args:
        trace: hidden and cell states before the step, gamma, snapshot, ln C, and the loss.
        weights: (P,), of the snapshot.
        layers: how many cells are stacked.
        hidden: H.
        shift: what is subtracted from the forget gates' preactivations.
        seen: (layers, COLUMNS * H), filled.
    """
    offset, width = 0, 1
    for layer in range(layers):
        h, c, mine = hidden * layer, hidden * (layers + layer), seen[layer]
        gates = mine[GATES * hidden : FIRST * hidden]
        for gate in range(4 * hidden):
            gates[gate] = wide(weights[offset + gate]) + wide(weights[offset + 4 * hidden + gate])
        for unit in range(hidden):
            gates[hidden + unit] -= shift
        offset += 8 * hidden
        first = mine[FIRST * hidden : FIRST * hidden + hidden // 2]
        if layer == 0:
            offset = _perceptron(trace[len(trace) - 1 :], weights, offset, first, gates)
        else:
            offset = _perceptron(seen[layer - 1, :hidden], weights, offset, first, gates)
        second = mine[SECOND * hidden : SECOND * hidden + hidden // 2]
        offset = _perceptron(trace[h : h + hidden], weights, offset, second, gates)
        for unit in range(hidden):
            for gate in range(3):
                gates[gate * hidden + unit] = sigmoid(gates[gate * hidden + unit])
            gates[3 * hidden + unit] = math.tanh(gates[3 * hidden + unit])
            kept = gates[hidden + unit] * trace[c + unit] + gates[unit] * gates[3 * hidden + unit]
            mine[CELL * hidden + unit] = kept
            mine[HIDDEN + unit] = gates[2 * hidden + unit] * math.tanh(kept)
        width = hidden
    score = wide(weights[offset + width])
    for unit in range(hidden):
        score += seen[layers - 1, unit] * weights[offset + unit]
    return score


@compiled
def _perceptron(x: Values, weights: Vector, offset: int, between: Floats, gates: Floats) -> int:
    """Add what a perceptron gives to the gates, keep what it has between; return the next offset."""
    half = len(between)
    for inner in range(half):
        between[inner] = weights[offset + inner]
    offset += half
    for unit in range(len(x)):
        value, row = wide(x[unit]), weights[offset : offset + half]
        for inner in range(half):
            between[inner] += value * row[inner]
        offset += half
    for inner in range(half):
        row = weights[offset : offset + len(gates)]
        if between[inner] > 0:
            for gate in range(len(gates)):
                gates[gate] += between[inner] * row[gate]
        offset += len(gates)
    return offset


@compiled
def backwards(
    trace: Vector, weights: Vector, layers: int, hidden: int, seen: Floats, score: float, gradient: Floats
) -> None:
    """Fill the gradient, (P,), of the log learning rate of the step that `forwards` made."""
    gradient[:] = 0.0
    slope, offset = sigmoid(-score), len(weights) - hidden - 1
    upper = np.empty(hidden)
    for unit in range(hidden):
        upper[unit] = slope * weights[offset + unit]
        gradient[offset + unit] = slope * seen[layers - 1, unit]
    gradient[offset + hidden] = slope
    gates, nothing = np.empty(4 * hidden), np.empty(0)
    for layer in range(layers - 1, -1, -1):
        width = 1 if layer == 0 else hidden
        half = hidden // 2
        offset -= 8 * hidden + (1 + width + 4 * hidden) * half + (1 + hidden + 4 * hidden) * half
        h, c, mine = hidden * layer, hidden * (layers + layer), seen[layer]
        _through_the_gates(mine, trace[c : c + hidden], upper, gates)
        copy_to(gradient[offset : offset + 4 * hidden], gates)
        copy_to(gradient[offset + 4 * hidden : offset + 8 * hidden], gates)
        start, upper[:] = offset + 8 * hidden, 0.0
        first = mine[FIRST * hidden : FIRST * hidden + half]
        if layer == 0:
            x = trace[len(trace) - 1 :]
            start = _through_a_perceptron(x, first, gates, weights, start, gradient, nothing)
        else:
            below = seen[layer - 1, :hidden]
            start = _through_a_perceptron(below, first, gates, weights, start, gradient, upper)
        second = mine[SECOND * hidden : SECOND * hidden + half]
        _through_a_perceptron(trace[h : h + hidden], second, gates, weights, start, gradient, nothing)


@compiled
def _through_the_gates(mine: Floats, before: Vector, upper: Floats, gates: Floats) -> None:
    """Fill the slopes of the gates' preactivations, (4 H,), from those of the hidden state, (H,)."""
    hidden = len(upper)
    act = mine[GATES * hidden : FIRST * hidden]
    for unit in range(hidden):
        take, forget, out, new = (
            act[unit],
            act[hidden + unit],
            act[2 * hidden + unit],
            act[3 * hidden + unit],
        )
        level = math.tanh(mine[CELL * hidden + unit])
        cell = upper[unit] * out * (1 - level * level)
        gates[unit] = cell * new * take * (1 - take)
        gates[hidden + unit] = cell * before[unit] * forget * (1 - forget)
        gates[2 * hidden + unit] = upper[unit] * level * out * (1 - out)
        gates[3 * hidden + unit] = cell * take * (1 - new * new)


@compiled
def _through_a_perceptron(
    x: Values,
    between: Floats,
    gates: Floats,
    weights: Vector,
    offset: int,
    gradient: Floats,
    below: Floats,
) -> int:
    """Fill a perceptron's part of the gradient, and add up what its inputs get, unless that is empty."""
    half, inputs = len(between), len(x)
    out = offset + half + inputs * half
    for inner in range(half):
        if between[inner] > 0:
            start = out + inner * len(gates)
            for gate in range(len(gates)):
                gradient[start + gate] = between[inner] * gates[gate]
            gradient[offset + inner] = _dot(weights[start : start + len(gates)], gates)
    bias = gradient[offset : offset + half]
    for unit in range(inputs):
        start = offset + half + unit * half
        for inner in range(half):
            gradient[start + inner] = x[unit] * bias[inner]
        if len(below):
            below[unit] = _dot(weights[start : start + half], bias)
    return out + half * len(gates)


@compiled
def _dot(left: Vector, right: Floats) -> float:
    """Return a sum of products, in four parts that a processor can add side by side."""
    one = two = three = four = 0.0
    whole = len(left) // 4 * 4
    for start in range(0, whole, 4):
        one += left[start] * right[start]
        two += left[start + 1] * right[start + 1]
        three += left[start + 2] * right[start + 2]
        four += left[start + 3] * right[start + 3]
    for rest in range(whole, len(left)):
        one += left[rest] * right[rest]
    return (one + two) + (three + four)
