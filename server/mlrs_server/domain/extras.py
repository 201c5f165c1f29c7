"""What comes with observations besides their losses: signals, validation losses, that a state was restored.

Most observations come without any, so a record holds them sparsely, and a message that has none has no array
of them at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlrs_core.policy import COLUMNS, SIGNALS, Floats, Rows, Signals, Steps

EXTRAS = (*COLUMNS, "validation_step")
"""The columns of extras: what a policy reads, and the step that the validation loss was measured at."""
WIDTH = len(EXTRAS)
LOSS, STEP = EXTRAS.index("validation_loss"), EXTRAS.index("validation_step")
"""The columns of the validation loss and of its step. The step is NaN where no validation loss was sent; a
step is at most 2**53, which a double holds exactly."""
RESTORED = EXTRAS.index("restored")
"""The column that is 1 where the training has restored a saved state since the observation before; NaN
elsewhere."""
Extras = Floats
"""What came with n observations, (n, WIDTH), as it was sent; NaN: not sent."""

SENT = np.dtype([("row", np.int64), ("step", np.int64), ("extras", np.float64, (WIDTH,))])
"""The extras of an answered observation of a group, to be stored: 88 bytes."""


def none_sent(n: int) -> Extras:
    """Return the extras of n observations that have none."""
    return np.full((n, WIDTH), np.nan)


def is_sent(extras: Extras) -> npt.NDArray[np.bool_]:
    """Return which observations have any extras, (n,)."""
    sent = np.isnan(extras)
    return np.logical_not(sent.all(axis=1))


def inputs_of(extras: Extras) -> Signals:
    """Return what a policy reads, (n, len(COLUMNS)), in one piece, without numbers that are not finite."""
    columns = extras[:, : len(COLUMNS)]
    return np.where(np.isfinite(columns), columns, np.nan)


def agree(recorded: Extras, sent: Extras) -> npt.NDArray[np.bool_]:
    """Return of which observations what is sent again is what was recorded, (n,): the same bits.

    What is not sent again is not compared: a process that starts again may not know all that it sent before.
    """
    bits = np.ascontiguousarray(recorded).view(np.uint64) == np.ascontiguousarray(sent).view(np.uint64)
    same: npt.NDArray[np.bool_] = (bits | np.isnan(sent)).all(axis=-1)
    return same


def difference(recorded: Extras, sent: Extras) -> str:
    """Return how the extras of an observation, (WIDTH,), differ from those that it was recorded with."""
    for name, before, now in zip(EXTRAS, recorded.tolist(), sent.tolist(), strict=True):
        if not agree(np.array([before]), np.array([now])):
            return f"with {_said(name, before)}, and comes now with {_said(name, now)}"
    return ""


def _said(name: str, value: float) -> str:
    if name == EXTRAS[RESTORED]:
        return "no restored state" if np.isnan(value) else "a restored state"
    if np.isnan(value):
        return f"no {name}"
    return f"the {name} {int(value) if name == EXTRAS[STEP] else repr(value)}"


def first_sent(reports: Sequence[Extras]) -> Extras:
    """Return the signals, the validation loss and so on of the first observations that have them, (WIDTH,).

    Args:
        reports: the extras of one step, each (WIDTH,).
    """
    first: Extras = np.full(WIDTH, np.nan)
    for columns in (list(range(len(SIGNALS))), [LOSS, STEP], [RESTORED]):
        for report in reports:
            if not np.isnan(report[columns]).all():
                first[columns] = report[columns]
                break
    return first


@dataclass(frozen=True)
class SparseExtras:
    """The extras of those of n observations that have any."""

    positions: npt.NDArray[np.int64]
    """The positions of these observations, (m,), ascending."""
    values: Extras
    """(m, WIDTH)."""

    def __len__(self) -> int:
        """Return how many observations have extras."""
        return len(self.positions)

    @classmethod
    def sorted(cls, positions: npt.NDArray[np.int64], values: Extras) -> SparseExtras:
        """Return extras whose positions come in any order."""
        order = np.argsort(positions)
        return cls(positions[order], values[order])

    def cut(self, start: int, count: int) -> SparseExtras:
        """Return the extras of at most `count` observations from a position on."""
        first, end = np.searchsorted(self.positions, (start, start + count))
        return SparseExtras(self.positions[first:end] - start, self.values[first:end])

    def dense(self, n: int) -> Extras | None:
        """Return the extras of n observations, (n, WIDTH); `None` if none has any."""
        if not len(self):
            return None
        extras = none_sent(n)
        extras[self.positions] = self.values
        return extras


NO_EXTRAS = SparseExtras(np.empty(0, np.int64), np.empty((0, WIDTH)))
"""The extras of observations that have none."""


def find_sent(sent: npt.NDArray[np.void], rows: Rows, steps: Steps) -> Extras:
    """Return the extras of steps of rows, (k, WIDTH).

    Args:
        sent: (n,) of `SENT`, in any order.
        rows: the row of each wanted step, (k,).
        steps: the wanted steps, (k,).
    """
    n = len(sent)
    both_rows, both_steps = np.append(sent["row"], rows), np.append(sent["step"], steps)
    order = np.lexsort((np.arange(n + len(rows)) >= n, both_steps, both_rows))
    # In this order, the extras of a wanted step come right before it, if there are any.
    newest = np.maximum.accumulate(np.where(order < n, np.arange(len(order)), -1))
    wanted = np.flatnonzero((order >= n) & (newest >= 0))
    candidates, those = order[newest[wanted]], order[wanted] - n
    found = (sent["row"][candidates] == rows[those]) & (sent["step"][candidates] == steps[those])
    extras = none_sent(len(rows))
    extras[those[found]] = sent["extras"][candidates[found]]
    return extras
