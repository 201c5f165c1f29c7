"""Steps of the same run, one after another: for what is computed for many runs side by side."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mlrs_core.policy import Rows


def rounds(rows: Rows) -> Iterator[npt.NDArray[np.intp]]:
    """Yield indices of entries, (n,): a row at most once in a round, every entry in one, in their order."""
    if len(np.unique(rows)) == len(rows):
        yield np.arange(len(rows))
        return
    order = np.argsort(rows, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(rows[order]) != 0))
    before = np.empty(len(rows), np.intp)
    before[order] = np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows))))
    by_round = np.argsort(before, kind="stable")
    yield from np.split(by_round, np.flatnonzero(np.diff(before[by_round])) + 1)
