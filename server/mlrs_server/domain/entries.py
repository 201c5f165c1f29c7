"""Observations and what they get, as tables with a row each: of a message, and of what is to be stored."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from mlrs_core.compiled import compiled_background
from mlrs_core.policy import Floats, Rows, Steps

Handles = npt.NDArray[np.uint64]
"""Run handles: 32 random bits, 12 bits of group, 20 bits of row. Never 0."""
Bytes = npt.NDArray[np.uint8]
"""Reasons, statuses and verdicts as small numbers."""

ENTRY = np.dtype(
    [
        ("handle", np.uint64),
        ("step", np.int64),
        ("loss", np.float64),
        ("row", np.int64),
        ("expected", np.int64),
        ("before", np.float64),
        ("lr", np.float64),
        ("durable_step", np.int64),
        ("rank", np.uint32),
        ("verdict", np.uint8),
        ("reason", np.uint8),
    ],
    align=True,
)
"""An observation, its run's row and what it gets.

`handle`, `step`, `loss` and `rank` come in, the rest is filled. `expected` is the step that the run expected
when it was the entry's turn, `before` its last loss until then (of fresh entries), `lr` NaN and `reason` 0
where nothing is advised, `durable_step` -1 where the handle is stale.
"""
_ONE = struct.Struct("=Qqd40xI4x")
"""A row of `ENTRY`: `handle`, `step`, `loss` and `rank`, zeros in the rest."""
Table = npt.NDArray[np.void]
"""A table: of `ENTRY`, or of `ANSWERED`."""

ANSWERED = np.dtype(
    [
        ("row", np.int64),
        ("step", np.int64),
        ("loss", np.float64),
        ("lr", np.float64),
        ("reason", np.uint8),
    ],
    align=True,
)
"""A fresh answer of a group, as it is to be stored: 40 bytes."""


@compiled_background
def count_rows(answers: Table, counts: Steps) -> None:
    """Add up how many answers, (n,) of `ANSWERED`, each row has."""
    for index in range(len(answers)):
        counts[answers[index].row] += 1


@compiled_background
def sort_by_row(answers: Table, positions: Steps, into: Table) -> None:
    """Sort answers, (n,) of `ANSWERED`, by row, those of a row in their order.

    Args:
        answers: (n,).
        positions: where each row's begin; changed.
        into: (n,), filled.
    """
    for index in range(len(answers)):
        answer = answers[index]
        position = positions[answer.row]
        positions[answer.row] = position + 1
        sorted_ = into[position]
        sorted_.row, sorted_.step, sorted_.loss = answer.row, answer.step, answer.loss
        sorted_.lr, sorted_.reason = answer.lr, answer.reason


@compiled_background
def find_answers(answers: Table, rows: Rows, steps: Steps, numbers: Steps, positions: Steps) -> None:
    """Find the answers for some steps of rows.

    Args:
        answers: (n,) of `ANSWERED`; those of a row are of steps without gaps, in their order.
        rows: (k,), of the steps.
        steps: (k,).
        numbers: zeros, one for each row up to the highest of `rows`; overwritten.
        positions: (k,), filled with where in `answers` each is; -1 where it is not there.
    """
    distinct = 0
    for wanted in range(len(rows)):
        if numbers[rows[wanted]] == 0:
            distinct += 1
            numbers[rows[wanted]] = distinct
    begins = np.zeros(distinct + 1, np.int64)  # of each row's among `by_row`, once they are added up
    for index in range(len(answers)):
        if answers[index].row < len(numbers):
            begins[numbers[answers[index].row]] += 1
    begins[0] = 0
    begins = np.cumsum(begins)
    by_row, filled = np.empty(begins[distinct], np.int64), begins.copy()
    for index in range(len(answers)):
        row = answers[index].row
        if row < len(numbers) and numbers[row] > 0:
            by_row[filled[numbers[row] - 1]] = index
            filled[numbers[row] - 1] += 1
    for wanted in range(len(rows)):
        first, end = begins[numbers[rows[wanted]] - 1], begins[numbers[rows[wanted]]]
        positions[wanted] = -1
        if first < end:
            position = first + steps[wanted] - answers[by_row[first]].step
            if first <= position < end and answers[by_row[position]].step == steps[wanted]:
                positions[wanted] = by_row[position]


class Entries:
    """Entries of a message, in their order. The columns are views of the table, (n,) each."""

    __slots__ = ("table",)

    def __init__(self, table: Table) -> None:
        """Wrap a table of `ENTRY`, (n,)."""
        self.table = table

    @classmethod
    def of(cls, handles: Handles, steps: Steps, losses: Floats) -> Entries:
        """Return the entries of some columns, (n,) each, of rank 0."""
        table = np.zeros(len(handles), ENTRY)
        table["handle"], table["step"], table["loss"] = handles, steps, losses
        return cls(table)

    @classmethod
    def of_one(cls, handle: int, step: int, loss: float, rank: int = 0) -> Entries:
        """Return a single observation as entries: the quick way, for a training loop's every step."""
        return cls(np.frombuffer(bytearray(_ONE.pack(handle, step, loss, rank)), ENTRY))

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.table)

    @property
    def handles(self) -> Handles:
        """What names the runs."""
        return self.table["handle"]

    @property
    def steps(self) -> Steps:
        """The steps."""
        return self.table["step"]

    @property
    def losses(self) -> Floats:
        """The losses; any value."""
        return self.table["loss"]

    @property
    def rows(self) -> Rows:
        """The runs' rows; 0 where the handle is stale."""
        return self.table["row"]

    @property
    def verdicts(self) -> Bytes:
        """What each entry is: `Verdict`."""
        return self.table["verdict"]

    @property
    def lrs(self) -> Floats:
        """The learning rates; NaN where nothing is advised."""
        return self.table["lr"]

    @property
    def reasons(self) -> Bytes:
        """Why: `AdviceReason`; 0 where nothing is advised."""
        return self.table["reason"]

    @property
    def durable_steps(self) -> Steps:
        """How far the runs are stored; -1 where the handle is stale."""
        return self.table["durable_step"]


class AnswerLog:
    """Fresh answers of a group that are not stored yet, in their order. Its table grows by doubling.

    What was written to the table stays there: a view of it may be read on another thread.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self.table: Table = np.empty(8, ANSWERED)
        self.count = 0
        self._taken: Table = np.empty(0, ANSWERED)

    def make_room(self, count: int) -> None:
        """See to it that so many more fit."""
        if self.count + count > len(self.table):
            grown = np.empty(max(2 * len(self.table), self.count + count), ANSWERED)
            grown[: self.count] = self.table[: self.count]
            self.table = grown

    def take(self) -> Table:
        """Return all answers, and keep none but for `unstored`, until they are stored or put back."""
        taken, self.table, self.count = self.table[: self.count], np.empty(8, ANSWERED), 0
        self._taken = taken
        return taken

    def take_rows(self, rows: Rows) -> Table:
        """Return the answers of some rows, (k,), and keep the others; the former for `unstored`, too."""
        answers = self.table[: self.count]
        wanted = np.isin(answers["row"], rows)
        taken, kept = answers[wanted], answers[~wanted]
        self.table, self.count = kept, len(kept)
        self._taken = taken
        return taken

    def stored(self) -> None:
        """Note that what was taken is stored."""
        self._taken = np.empty(0, ANSWERED)

    def unstored(self) -> list[Table]:
        """Return views of the answers that are not known to be stored: those taken, and those since."""
        return [self._taken, self.table[: self.count]]

    def put_back(self, taken: Table) -> None:
        """Put answers that were taken before those that came since."""
        self.stored()  # as far as `unstored` is concerned
        both = np.concatenate([taken, self.table[: self.count]])
        self.table, self.count = both, len(both)

    def drop(self, rows: Rows) -> int:
        """Drop the answers of some rows, (k,); return how many there were."""
        return len(self.take_rows(rows))
