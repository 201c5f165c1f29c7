"""The engine: answers observations as they arrive, and lets no message starve another.

The kernels advance runs one by one, so batching messages together gains nothing (ADR 0014): a message is
answered where it is read. A long message is answered in slices, between which other messages are answered.
Within a slice nothing awaits, so no other task can change a run between reading its state and writing it, and
no lock is needed.
"""

from __future__ import annotations

import asyncio

import numpy as np
import numpy.typing as npt

from mlrs_server.domain.handles import group_of
from mlrs_server.domain.ledger import Verdict, common_group
from mlrs_server.domain.observations import Entries
from mlrs_server.errors import stale_handle
from mlrs_server.live.answers import Answer, Recall, refuse
from mlrs_server.live.arrays import RunGroup
from mlrs_server.live.journal import Journal

SLICE = 1024
"""Entries answered at a time: one or two milliseconds under the models that come with mlrs."""


class Engine:
    """Answers observations, from one event loop."""

    def __init__(self, groups: list[RunGroup], journal: Journal) -> None:
        """Answer for the runs of `groups`, a list that may grow later."""
        self._groups = groups
        self._journal = journal

    async def answer(self, entries: Entries, tenant: int = 0) -> Answer:
        """Answer observations in order, a slice at a time.

        Args:
            entries: the observations, at least one.
            tenant: the number of the caller's tenant (`tenancy.py`); handles of other tenants are stale.

        Raises:
            AdvisorError: as many answers as are kept already wait to be stored.
        """
        answer = Answer(entries)
        for start in range(0, len(entries), SLICE):
            if start:
                await asyncio.sleep(0)
            self._answer_slice(answer, entries.part(slice(start, start + SLICE)), start, tenant)
        return answer

    def answer_now(self, entries: Entries, tenant: int = 0) -> Answer:
        """Answer at most one slice of observations; see `answer`."""
        answer = Answer(entries)
        self._answer_slice(answer, entries, 0, tenant)
        return answer

    def _answer_slice(self, answer: Answer, entries: Entries, start: int, tenant: int) -> None:
        """Answer entries of a message, of which the first is at `start`."""
        self._journal.check_capacity()
        common = common_group(entries.table)
        if 0 <= common < len(self._groups):
            self._answer_group(answer, self._groups[common], entries, start, tenant)
        else:
            self._answer_groups(answer, entries, start, tenant)

    def _answer_group(
        self,
        answer: Answer,
        group: RunGroup,
        entries: Entries,
        positions: npt.NDArray[np.intp] | int,
        tenant: int,
    ) -> None:
        """Answer entries of one group; `positions` are theirs in the message, or only that of the first."""
        fresh, plain = group.answer(entries, tenant)
        answer.plain += plain
        if fresh:
            self._journal.note(group, fresh)
        if fresh == len(entries):
            return
        where = np.arange(positions, positions + len(entries)) if isinstance(positions, int) else positions
        expected, next_steps = entries.table["expected"], group.records["next_step"][entries.rows]
        recalled = entries.verdicts == Verdict.RECALL
        # These entries have advanced the run, so its record no longer holds the loss of that step.
        recalled |= (entries.verdicts == Verdict.OTHER_LOSS) & (expected != next_steps)
        if recalled.any():
            answer.recalls.append(Recall(group, where[recalled]))
        for index in np.flatnonzero((entries.verdicts > Verdict.REPLAY) & ~recalled).tolist():
            refuse(answer, int(where[index]), group, entries.table[index])

    def _answer_groups(self, answer: Answer, entries: Entries, start: int, tenant: int) -> None:
        """Answer entries of several groups, or with handles of no group."""
        table = entries.table
        numbers = group_of(table["handle"])
        for number in np.unique(numbers):
            positions = np.flatnonzero(numbers == number)
            some = entries.part(positions)
            if number < len(self._groups):
                self._answer_group(answer, self._groups[number], some, positions + start, tenant)
            else:
                some.lrs[:], some.reasons[:], some.durable_steps[:] = np.nan, 0, -1
                answer.errors |= {int(position) + start: stale_handle() for position in positions}
            table[positions] = some.table
