"""Observations with their advice as table rows: those of a message, and those to be stored."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from mlrs_core.compiled import compiled_background
from mlrs_core.policy import Floats, Rows, Steps
from mlrs_server.domain.extras import SENT, Extras

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
"""An observation, its run's row, and its advice.

`handle`, `step`, `loss` and `rank` are inputs, the other fields are filled. `expected` is the run's next step
before the entry, and `before` its last loss then (of fresh entries). Where nothing is advised, `lr` is NaN
and `reason` is 0. Where the handle is stale, `durable_step` is -1.
"""
_ONE = struct.Struct("=Qqd40xI4x")
"""A row of `ENTRY`: `handle`, `step`, `loss` and `rank`, zeros in the rest."""
Table = npt.NDArray[np.void]
"""A table: of `ENTRY`, of `ANSWERED`, or of `SENT`."""

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
"""A fresh answer of a group, to be stored: 40 bytes."""


@compiled_background
def count_rows(answers: Table, counts: Steps) -> None:
    """Add to `counts`, by row, the number of answers, (n,) of `ANSWERED`."""
    for index in range(len(answers)):
        counts[answers[index].row] += 1


@compiled_background
def sort_by_row(answers: Table, positions: Steps, into: Table) -> None:
    """Sort answers, (n,) of `ANSWERED`, by row; the order within a row stays.

    Args:
        answers: (n,).
        positions: the index of each row's first answer in the result; changed.
        into: (n,) of `ANSWERED`, filled.
    """
    for index in range(len(answers)):
        answer = answers[index]
        position = positions[answer.row]
        positions[answer.row] = position + 1
        sorted_ = into[position]
        sorted_.row, sorted_.step, sorted_.loss = answer.row, answer.step, answer.loss
        sorted_.lr, sorted_.reason = answer.lr, answer.reason


@compiled_background
def _sum_up(counts: Steps) -> None:
    """Replace counts by their cumulative sum. NumPy's own takes longer to compile, and to load."""
    for index in range(1, len(counts)):
        counts[index] += counts[index - 1]


@compiled_background
def find_answers(answers: Table, rows: Rows, steps: Steps, numbers: Steps, positions: Steps) -> None:
    """Find the answers for steps of rows.

    Args:
        answers: (n,) of `ANSWERED`; the steps of each row are in order and without gaps.
        rows: (k,), the row of each wanted answer.
        steps: (k,), the step of each wanted answer.
        numbers: zeros, (highest of `rows` + 1,); overwritten.
        positions: (k,), filled with each one's index in `answers`; -1 where it is missing.
    """
    distinct = 0
    for wanted in range(len(rows)):
        if numbers[rows[wanted]] == 0:
            distinct += 1
            numbers[rows[wanted]] = distinct
    begins = np.zeros(distinct + 1, np.int64)  # counts; summed up, they index `by_row`
    for index in range(len(answers)):
        if answers[index].row < len(numbers):
            begins[numbers[answers[index].row]] += 1
    begins[0] = 0
    _sum_up(begins)
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
    """The entries of a message, in order. Columns are views of the table, (n,) each."""

    __slots__ = ("extras", "table")

    def __init__(self, table: Table, extras: Extras | None = None) -> None:
        """Wrap a table of `ENTRY`, (n,), and the entries' extras, (n, WIDTH); `None`: no entry has any."""
        self.table = table
        self.extras = extras

    def part(self, which: slice | npt.NDArray[np.bool_] | npt.NDArray[np.intp] | list[int]) -> Entries:
        """Return some of the entries: views for a slice, otherwise copies."""
        return Entries(self.table[which], None if self.extras is None else self.extras[which])

    @classmethod
    def of(cls, handles: Handles, steps: Steps, losses: Floats) -> Entries:
        """Return the entries of columns, (n,) each, of rank 0."""
        table = np.zeros(len(handles), ENTRY)
        table["handle"], table["step"], table["loss"] = handles, steps, losses
        return cls(table)

    @classmethod
    def of_one(
        cls, handle: int, step: int, loss: float, rank: int = 0, extras: Extras | None = None
    ) -> Entries:
        """Return one observation as entries: the fast path for the steps of a training loop."""
        return cls(np.frombuffer(bytearray(_ONE.pack(handle, step, loss, rank)), ENTRY), extras)

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.table)

    @property
    def handles(self) -> Handles:
        """The runs' handles."""
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
        """The `Verdict` of each entry."""
        return self.table["verdict"]

    @property
    def lrs(self) -> Floats:
        """The learning rates; NaN where nothing is advised."""
        return self.table["lr"]

    @property
    def reasons(self) -> Bytes:
        """The `AdviceReason` of each entry, with `RESTORE` beside it; 0 where nothing is advised."""
        return self.table["reason"]

    @property
    def durable_steps(self) -> Steps:
        """The runs' newest stored steps; -1 where the handle is stale."""
        return self.table["durable_step"]


class AnswerLog:
    """The fresh answers of a group that are not stored yet, in order; or the extras that they came with.

    Its table grows by doubling. Rows that were written are never overwritten: another thread may read a view
    of them.
    """

    def __init__(self, kind: np.dtype[np.void] = ANSWERED) -> None:
        """Start empty; `kind` is `ANSWERED` or `SENT`."""
        self.table: Table = np.empty(8, kind)
        self.count = 0
        self._taken: Table = np.empty(0, kind)

    @classmethod
    def of_extras(cls) -> AnswerLog:
        """Return an empty log of extras."""
        return cls(SENT)

    def reserve(self, count: int) -> None:
        """Grow the table, if needed, so that `count` more answers fit."""
        if self.count + count > len(self.table):
            grown = np.empty(max(2 * len(self.table), self.count + count), self.table.dtype)
            grown[: self.count] = self.table[: self.count]
            self.table = grown

    def take(self) -> Table:
        """Remove and return all answers; `unstored` has them until they are stored or put back."""
        taken, self.table, self.count = self.table[: self.count], np.empty(8, self.table.dtype), 0
        self._taken = taken
        return taken

    def take_rows(self, rows: Rows) -> Table:
        """Remove and return the answers of rows, (k,); `unstored` has them as for `take`."""
        answers = self.table[: self.count]
        wanted = np.isin(answers["row"], rows)
        taken, others = answers[wanted], answers[~wanted]
        self.table, self.count = others, len(others)
        self._taken = taken
        return taken

    def stored(self) -> None:
        """Record that the answers taken last are stored."""
        self._taken = np.empty(0, self.table.dtype)

    def unstored(self) -> list[Table]:
        """Return views of the answers that are not known to be stored: those taken, and those added since."""
        return [self._taken, self.table[: self.count]]

    def put_back(self, taken: Table) -> None:
        """Insert answers that were taken before those added since."""
        self.stored()  # as far as `unstored` is concerned
        both = np.concatenate([taken, self.table[: self.count]])
        self.table, self.count = both, len(both)

    def drop(self, rows: Rows) -> int:
        """Remove the answers of rows, (k,); return how many there were."""
        return len(self.take_rows(rows))
