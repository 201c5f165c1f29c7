"""What a flush stores of one group: taken from the group, then stored and settled, or put back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from mlrs_core.policy import Rows, States
from mlrs_server.domain.entries import Table, count_rows, sort_by_row
from mlrs_server.domain.ledger import ADAPTED, Records
from mlrs_server.domain.updates import AppliedUpdate, WeightCheckpoints
from mlrs_server.live.arrays import RunGroup
from mlrs_server.storage import RunUpdates


@dataclass(frozen=True)
class FlushBatch:
    """What a flush stores of one group."""

    group: RunGroup
    taken: Table
    """The answers, in the order that they were given in."""
    rows: Rows
    """The rows that were answered, (k,), ascending."""
    records: Records
    """What the runs are after them, (k,)."""
    states: States
    """Likewise, (k, state_size)."""
    applied: list[AppliedUpdate]
    """Meta updates of them, in the order that they were made in."""
    networks: WeightCheckpoints | None
    """Networks of some of them."""

    @classmethod
    def of(cls, group: RunGroup, only: Collection[int] | None = None) -> FlushBatch:
        """Take what a group has to store, of all of its rows or only of some; this may be nothing."""
        counts = np.zeros(len(group.records), np.int64)
        count_rows(group.log.table[: group.log.count], counts)
        for made in group.meta.applied:
            counts[made.row] += 1
        if only is None:
            rows = np.flatnonzero(counts)
        else:
            rows = np.array([row for row in sorted(only) if row < len(counts) and counts[row]], np.intp)
        records, states, networks = group.records[rows], group.states[rows], group.checkpoints_due(rows)
        if only is None:
            taken, made_updates = group.log.take(), group.meta.take()
        else:
            taken, made_updates = group.log.take_rows(rows), group.meta.take_rows(rows)
        return cls(group, taken, rows, records, states, made_updates, networks)

    def __len__(self) -> int:
        """Return how many answers and meta updates it holds."""
        return len(self.taken) + len(self.applied)

    def put_back(self) -> None:
        """Give back what was taken."""
        self.group.log.put_back(self.taken)
        self.group.meta.put_back(self.applied)

    def updates(self) -> RunUpdates:
        """Return what to store; on any thread."""
        counts = np.zeros(self.rows[-1] + 1, np.int64)
        count_rows(self.taken, counts)
        ends = np.cumsum(counts)
        bounds = np.append(ends[self.rows] - counts[self.rows], len(self.taken))
        answers = np.empty_like(self.taken)
        sort_by_row(self.taken, ends - counts, answers)
        return RunUpdates(answers, bounds, self.records, self.states, self.applied, self.networks)

    def settle(self) -> list[str]:
        """Move durable steps on, of the rows that are still the same runs; return the ids of the rows.

        A run whose newest step had its meta update while it was being stored is stored to the step before.
        """
        self.group.log.stored()
        if self.networks is not None:
            self.group.checkpoints_stored(self.networks)
        records = self.group.records
        now, then = records[self.rows], self.records
        same = now["key"] == then["key"]
        adapted = (now["last_reason"] & ~then["last_reason"] & ADAPTED) != 0
        ends = then["next_step"] - np.where(adapted, 2, 1)
        records["durable_step"][self.rows[same]] = ends[same]
        return [self.group.run_ids[row] for row in self.rows]
