"""Compiled loops: what every kernel computes with.

A kernel is a loop over runs, written for one run at a time and compiled by Numba. So a run's bits cannot
depend on which runs are computed beside it, or on how many (ADR 0014). Machine code is kept beside the
sources, or where `NUMBA_CACHE_DIR` says: it is made once per machine and version, and at each start where it
cannot be kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

from mlrs_core.kernel_cache import KernelCache

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile a function of numbers and arrays when it is first called. A division by 0 is no error."""
    return _compiled(function, nogil=False)


def compiled_background(function: Function) -> Function:
    """Compile a function that releases the interpreter (GIL): for long work beside the event loop.

    Releasing the interpreter and waiting for it again costs more than a short function takes, so what
    answers observations does not. A function that is needed in both forms has a twin, compiled this way, that
    calls it. As in `compiled`, a division by 0 is no error.
    """
    return _compiled(function, nogil=True)


def _compiled(function: Function, *, nogil: bool) -> Function:
    # Without the entry for callers in C, of which there are none, compiling takes a twelfth less.
    options: dict[str, Any] = {"error_model": "numpy", "nogil": nogil, "no_cfunc_wrapper": True}
    made: Any = numba.njit(**options)(function)
    made._cache = KernelCache(function)  # noqa: SLF001  # where `cache=True` puts Numba's own
    result: Function = made
    return result


@compiled
def sigmoid(x: float) -> float:
    """Return 1 / (1 + exp(-x)) without overflow."""
    return 1.0 / (1.0 + math.exp(min(-x, 80.0)))


@compiled
def log_sigmoid(x: float) -> float:
    """Return ln sigmoid(x) without overflow, and without loss where that is close to 0."""
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))


@compiled
def wide(x: Any) -> float:
    """Return a number in double precision. Compiled, `float` leaves one in single precision as it is."""
    return np.float64(x)


@compiled
def clip(x: float, low: float, high: float) -> float:
    """Return x within [low, high]."""
    return min(max(x, low), high)


@compiled
def copy_to(target: Any, source: Any) -> None:
    """Copy an array into another of its length, (n,) each, which do not overlap.

    As an assignment to a slice, it takes a second and a half longer to compile: Numba compiles the text of an
    error of shapes, too.
    """
    for index in range(len(target)):
        target[index] = source[index]
