"""Weights by name, out of a vector that a kernel reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]


def unpacked(
    shapes: Mapping[str, tuple[int, ...]],
    pack: Callable[[Arrays], npt.NDArray[Any]],
    vector: npt.NDArray[Any],
) -> dict[str, npt.NDArray[Any]]:
    """Return the weights by name, of some shapes, that `pack` laid out as a vector, (P,); copies."""
    indices, start = {}, 0
    for name, shape in shapes.items():
        indices[name] = start + np.arange(math.prod(shape)).reshape(shape)
        start += math.prod(shape)
    flat = np.empty_like(vector)
    flat[pack(indices)] = vector
    return {name: flat[where] for name, where in indices.items()}
