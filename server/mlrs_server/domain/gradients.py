"""The dot product of two vectors that arrive in pieces: a running sum in double precision."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlrs_core.compiled import compiled_background
from mlrs_core.policy import Floats
from mlrs_server.errors import invalid_field

LANES = 8
"""The number of independent partial sums, so that an addition need not wait for the one before."""


class ElementType(enum.IntEnum):
    """The type of a piece's elements, little-endian; numbered like the contract's `DataType`."""

    FLOAT32 = 1
    FLOAT16 = 2
    BFLOAT16 = 3

    @property
    def width(self) -> int:
        """The size of an element in bytes."""
        return 4 if self is ElementType.FLOAT32 else 2


@dataclass(frozen=True, slots=True)
class Piece:
    """The same stretch of both vectors."""

    kind: ElementType
    """The type of the elements of both vectors."""
    validation_gradient: bytes
    direction: bytes


class RunningDot:
    """The dot product of two vectors that arrive in pieces; never holds more than one piece."""

    def __init__(self) -> None:
        """Start with empty vectors."""
        self.elements = 0
        """The number of elements so far."""
        self.total = 0.0
        """Their dot product."""

    def add(self, piece: Piece) -> None:
        """Add a piece of both vectors.

        Raises:
            AdvisorError: the parts differ in length, or are not a whole number of elements.
        """
        left = _elements(piece.validation_gradient, piece.kind, "validation_gradient")
        right = _elements(piece.direction, piece.kind, "direction")
        if len(left) != len(right):
            raise invalid_field(
                "direction",
                f"has {len(right)} elements where validation_gradient has {len(left)}: send the same stretch "
                "of both",
            )
        self.elements += len(left)
        self.total += float(_dot(left, right))


def _elements(data: bytes, kind: ElementType, field: str) -> npt.NDArray[np.float32]:
    """Return elements in single precision, which represents each of the types exactly."""
    if len(data) % kind.width:
        raise invalid_field(field, f"has {len(data)} bytes, which are no whole elements of {kind.width}")
    if kind is ElementType.FLOAT32:
        return np.frombuffer(data, "<f4")
    if kind is ElementType.FLOAT16:
        return np.frombuffer(data, "<f2").astype(np.float32)
    return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")


@compiled_background
def _dot(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> float:
    """Return the dot product of two vectors, (n,), summed in double precision in `LANES` lanes."""
    sums: Floats = np.zeros(LANES)
    whole = len(left) - len(left) % LANES
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            sums[lane] += np.float64(left[start + lane]) * np.float64(right[start + lane])
    total = 0.0
    for lane in range(LANES):
        total += sums[lane]
    for index in range(whole, len(left)):
        total += np.float64(left[index]) * np.float64(right[index])
    return total
