"""The dot product of two vectors that come in pieces."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrs_server.domain.gradients import ElementType, Piece, RunningDot

F32, F16 = ElementType.FLOAT32, ElementType.FLOAT16


def vectors(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return two vectors, (size,) float32."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=size).astype("<f4"), rng.normal(size=size).astype("<f4")


def encoded(values: np.ndarray, kind: ElementType) -> tuple[bytes, np.ndarray]:
    """Return values as bytes of a type, and what these bytes mean."""
    if kind is F32:
        return values.tobytes(), values
    if kind is F16:
        half = values.astype("<f2")
        return half.tobytes(), half.astype("<f4")
    bits = (values.view("<u4") >> 16).astype("<u2")
    return bits.tobytes(), (bits.astype("<u4") << 16).view("<f4")


@given(
    st.integers(0, 300),
    st.lists(st.integers(0, 300), max_size=6),
    st.lists(st.sampled_from(ElementType), min_size=7, max_size=7),
)
def test_any_cut_and_any_type_is_the_same(size: int, cuts: list[int], kinds: list[ElementType]) -> None:
    """However vectors are cut, and whatever each piece is of, the sum is that of their elements."""
    left, right = vectors(size)
    bounds = [0, *sorted(min(cut, size) for cut in cuts), size]
    dot, expected = RunningDot(), []
    for start, end, kind in zip(bounds, bounds[1:], kinds, strict=False):
        (data, exact), (others, exact_others) = (encoded(v[start:end], kind) for v in (left, right))
        dot.add(Piece(kind, data, others))
        expected.append(exact.astype(np.float64) * exact_others.astype(np.float64))
    total = math.fsum(np.concatenate(expected)) if expected else 0.0
    assert dot.elements == size
    assert dot.total == pytest.approx(total, rel=1e-12, abs=1e-12)


def test_large_sums_keep_small_parts() -> None:
    """Sums are in double precision: ten million products of single precision lose nothing that matters."""
    left, right = vectors(10_000_000)
    right[0] = left[0] = 1e6
    dot = RunningDot()
    for start in range(0, len(left), 131_072):
        dot.add(Piece(F32, left[start : start + 131_072].tobytes(), right[start : start + 131_072].tobytes()))
    assert dot.total == pytest.approx(
        float(np.dot(left.astype(np.float64), right.astype(np.float64))), rel=1e-12
    )
