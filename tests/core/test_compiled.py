"""What kernels compute with."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba.core import caching

from mlrs_core.compiled import clip, compiled, sigmoid, wide


@given(st.floats(allow_nan=False))
def test_sigmoid_is_a_share(x: float) -> None:
    """It is within [0, 1] whatever it is given, and right where that can be checked."""
    assert 0 <= sigmoid(x) <= 1
    if abs(x) < 30:
        assert sigmoid(x) == pytest.approx(1 / (1 + math.exp(-x)), rel=1e-12)


@given(st.floats(allow_nan=False), st.floats(-5, 5), st.floats(0, 5))
def test_clip_is_numpys(x: float, low: float, width: float) -> None:
    """Within the bounds a number is itself, beyond them it is the nearer one."""
    assert clip(x, low, low + width) == np.clip(x, low, low + width)


def test_wide_numbers_are_not_rounded() -> None:
    """A sum of two single-precision numbers keeps what single precision would lose."""
    high, low = np.float32(1.0), np.float32(1e-10)
    assert wide(high) + wide(low) == 1.0 + float(low)


def test_machine_code_need_not_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no folder can be written to, functions are compiled all the same."""
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])

    def double(x: float) -> float:
        return 2 * x

    assert compiled(double)(3.0) == 6.0
