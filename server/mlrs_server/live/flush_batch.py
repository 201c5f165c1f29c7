"""The part of a flush that is of one group: taken from the group, then stored and settled, or put back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from mlrs_core.policy import Rows, States, Steps
from mlrs_server.domain.extras import NO_EXTRAS, SparseExtras
from mlrs_server.domain.ledger import ADAPTED, Records
from mlrs_server.domain.observations import Table, count_rows, sort_by_row
from mlrs_server.domain.updates import AppliedUpdate, WeightCheckpoints
from mlrs_server.live.arrays import RunGroup
from mlrs_server.storage import RunUpdates


@dataclass(frozen=True)
class FlushBatch:
    """The answers and meta updates of one group that a flush stores."""

    group: RunGroup
    taken: Table
    """The answers, in the order in which they were given, (n,) of `ANSWERED`."""
    extras: Table
    """The extras that these answers came with, (m,) of `SENT`."""
    rows: Rows
    """The rows that have answers or meta updates, (k,), ascending."""
    records: Records
    """The records of the runs after these answers, (k,) of `RECORD`."""
    states: States
    """The states of the runs after these answers, (k, state_size)."""
    applied: list[AppliedUpdate]
    """The meta updates of the runs, in the order in which they were applied."""
    checkpoints: WeightCheckpoints | None
    """The adapted weights that are due to be stored."""

    @classmethod
    def of(cls, group: RunGroup, only: Collection[int] | None = None) -> FlushBatch:
        """Take what is not stored of a group, of all its rows or only of some; the batch may be empty."""
        counts = np.zeros(len(group.records), np.int64)
        count_rows(group.log.table[: group.log.count], counts)
        for update in group.meta.applied:
            counts[update.row] += 1
        if only is None:
            rows = np.flatnonzero(counts)
        else:
            rows = np.array([row for row in sorted(only) if row < len(counts) and counts[row]], np.intp)
        records, states, checkpoints = group.records[rows], group.states[rows], group.checkpoints_due(rows)
        if only is None:
            taken, extras, applied = group.log.take(), group.extras_log.take(), group.meta.take()
        else:
            taken, applied = group.log.take_rows(rows), group.meta.take_rows(rows)
            extras = group.extras_log.take_rows(rows)
        return cls(group, taken, extras, rows, records, states, applied, checkpoints)

    def __len__(self) -> int:
        """Return the number of answers and meta updates in the batch."""
        return len(self.taken) + len(self.applied)

    def put_back(self) -> None:
        """Return to the group what was taken."""
        self.group.log.put_back(self.taken)
        self.group.extras_log.put_back(self.extras)
        self.group.meta.put_back(self.applied)

    def updates(self) -> RunUpdates:
        """Return the batch in the form that the store takes. May be called on any thread."""
        counts = np.zeros(self.rows[-1] + 1, np.int64)
        count_rows(self.taken, counts)
        starts = np.cumsum(counts) - counts
        bounds = np.append(starts[self.rows], len(self.taken))
        answers = np.empty_like(self.taken)
        sort_by_row(self.taken, starts.copy(), answers)
        extras = self._placed(answers, starts)
        return RunUpdates(answers, bounds, self.records, self.states, self.applied, self.checkpoints, extras)

    def _placed(self, answers: Table, starts: Steps) -> SparseExtras:
        """Return the extras by the positions of their answers.

        Args:
            answers: sorted by row, those of each row in the order of their steps and without gaps.
            starts: the position of each row's first answer.
        """
        if not len(self.extras):
            return NO_EXTRAS
        first = starts[self.extras["row"]]
        positions = first + self.extras["step"] - answers["step"][first]
        return SparseExtras.sorted(positions, self.extras["extras"])

    def settle(self) -> list[str]:
        """Advance the durable steps of rows that still hold the same runs; return the ids of the rows.

        If the newest step of a run had a meta update while the batch was stored, only the step before it is
        durable.
        """
        self.group.log.stored()
        self.group.extras_log.stored()
        if self.checkpoints is not None:
            self.group.checkpoints_stored(self.checkpoints)
        records = self.group.records
        now, then = records[self.rows], self.records
        same = now["key"] == then["key"]
        adapted = (now["last_reason"] & ~then["last_reason"] & ADAPTED) != 0
        ends = then["next_step"] - np.where(adapted, 2, 1)
        records["durable_step"][self.rows[same]] = ends[same]
        return [self.group.run_ids[row] for row in self.rows]
