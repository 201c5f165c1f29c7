"""Alternating blocks of measurements, and their ratio, which compares moments close together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
Floats = npt.NDArray[np.float64]
SETTLE_CALLS = 10
"""The first calls of a block, which wake what slept during the others' blocks, and are not counted."""


def take_turns(
    cases: Mapping[str, Callable[[], T]], rounds: int, *, warm_up: bool = True
) -> dict[str, list[T]]:
    """Return what a block of each case gave in each round; the first of them may be a warm-up, left out.

    Every other round goes backwards: whatever drifts favours nobody.
    """
    given: dict[str, list[T]] = {name: [] for name in cases}
    for number in range(rounds + warm_up):
        for name in list(cases)[:: -1 if number % 2 else 1]:
            value = cases[name]()
            if number >= warm_up:
                given[name].append(value)
    return given


def times(call: Callable[[], float | None], count: int) -> Floats:
    """Return the seconds of each of so many calls: what a call returns, or how long it took."""
    seconds = []
    for _ in range(SETTLE_CALLS + count):
        start = time.perf_counter()
        said = call()
        seconds.append(time.perf_counter() - start if said is None else said)
    return counted(seconds)


def counted(seconds: Sequence[float]) -> Floats:
    """Return those of a block's calls that count."""
    return np.array(seconds[SETTLE_CALLS:])


def percentiles_us(blocks: Sequence[Floats]) -> dict[str, float]:
    """Return the 50th, 90th and 99th percentile of all blocks' seconds together, in µs."""
    seconds = np.concatenate(blocks)
    return {f"p{level}_us": float(np.percentile(seconds, level)) * 1e6 for level in (50, 90, 99)}


def medians(blocks: Sequence[Floats]) -> list[float]:
    """Return the median of each block."""
    return [float(np.median(block)) for block in blocks]


def ratio(values: Sequence[float], baseline: Sequence[float]) -> dict[str, Any]:
    """Return the median, and the quartiles, of the ratios of values to the baseline's of the same round."""
    low, middle, high = np.percentile(np.asarray(values) / np.asarray(baseline), [25, 50, 75]).tolist()
    return {"median": middle, "low": low, "high": high}
