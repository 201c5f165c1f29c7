"""What every kernel computes with: products of whole tiles, so that a row's bits are its own.

A BLAS product gives a row different last bits depending on how many rows there are, so every
product here has exactly `TILE` rows: runs are padded to whole tiles, and a three-dimensional
`matmul` takes the tiles one by one. Then the code path of a row is always the same, whatever its
neighbours; `tests/core/test_batch_invariance.py` proves it (ADR 0004).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mlrs_core.policy import Steps

TILE = 8
"""Rows in a matrix product."""
BLOCK = 16 * TILE
"""Rows worked on before the next, so that their gates stay in the cache."""

Matrix = npt.NDArray[np.float32]
Real = TypeVar("Real", np.float32, np.float64)


def product(left: npt.NDArray[Real], right: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Return left @ right, tile by tile; left is (m, k) with m a multiple of TILE."""
    m, k = left.shape
    if k == 1:
        scaled: npt.NDArray[Real] = left * right
        return scaled
    tiles = np.ascontiguousarray(left).reshape(m // TILE, TILE, k)
    whole: npt.NDArray[Real] = np.matmul(tiles, right).reshape(m, right.shape[1])
    return whole


def sigmoid(x: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Return 1 / (1 + exp(-x)) without overflow: exp only ever sees what single precision can hold."""
    one: Any = x.dtype.type(1)
    result: npt.NDArray[Real] = one / (one + np.exp(np.minimum(-x, 80 * one)))
    return result


def blocks(chosen: Steps, count: int) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """Yield each snapshot in use, 0 to `count` - 1, with its rows, at most BLOCK at a time."""
    for index in range(count):
        rows = np.flatnonzero(chosen == index)
        for start in range(0, len(rows), BLOCK):
            yield index, rows[start : start + BLOCK]


def padded(rows: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Return a copy of some rows, (m, k), with zero rows up to a whole number of tiles."""
    out = np.zeros((-(-len(rows) // TILE) * TILE, rows.shape[1]), rows.dtype)
    out[: len(rows)] = rows
    return out
