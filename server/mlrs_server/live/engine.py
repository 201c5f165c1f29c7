"""The engine: answers observations as they come, and lets no message starve another.

The kernels take runs one by one, so there is nothing to gain by waiting for company (ADR 0014): a message is
answered where it is read. A long one is answered in slices, and whatever else has arrived comes in between.
Within a slice nothing awaits, so nothing can come between reading a run's state and writing it, and there is
no lock.
"""

from __future__ import annotations

import asyncio

import numpy as np
import numpy.typing as npt

from mlrs_server.domain.entries import Entries
from mlrs_server.domain.handles import group_of
from mlrs_server.domain.ledger import Verdict, common_group
from mlrs_server.errors import stale_handle
from mlrs_server.live.answers import Answer, Recall, refuse
from mlrs_server.live.arrays import RunGroup
from mlrs_server.live.journal import Journal

SLICE = 1024
"""Entries answered at a time: one or two milliseconds under the models that come with mlrs."""


class Engine:
    """Answers observations, from one event loop."""

    def __init__(self, groups: list[RunGroup], journal: Journal) -> None:
        """`groups` is the live list of groups, which may grow."""
        self._groups = groups
        self._journal = journal

    async def answer(self, entries: Entries, tenant: int = 0) -> Answer:
        """Answer observations, in their order, a slice at a time; one at least.

        Args:
            entries: the observations.
            tenant: the number of the caller's tenant (`names.py`): handles of others are stale to it.

        Raises:
            AdvisorError: more answers wait to be stored than are kept.
        """
        answer = Answer(entries)
        for start in range(0, len(entries), SLICE):
            if start:
                await asyncio.sleep(0)
            self._answer_slice(answer, Entries(entries.table[start : start + SLICE]), start, tenant)
        return answer

    def answer_now(self, entries: Entries, tenant: int = 0) -> Answer:
        """Answer at most a slice of observations; see `answer`."""
        answer = Answer(entries)
        self._answer_slice(answer, entries, 0, tenant)
        return answer

    def _answer_slice(self, answer: Answer, entries: Entries, start: int, tenant: int) -> None:
        """Answer some entries of a message, those from `start` on."""
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
        """Answer entries of one group; `positions` are those in the message, or the first of them."""
        fresh, plain = group.answer(entries, tenant)
        answer.plain += plain
        if fresh:
            self._journal.note(group, fresh)
        if fresh == len(entries):
            return
        where = np.arange(positions, positions + len(entries)) if isinstance(positions, int) else positions
        expected, next_steps = entries.table["expected"], group.records["next_step"][entries.rows]
        recalled = entries.verdicts == Verdict.RECALL
        # the run went on in these very entries: its record no longer says which loss the step had
        recalled |= (entries.verdicts == Verdict.OTHER_LOSS) & (expected != next_steps)
        if recalled.any():
            answer.recalls.append(Recall(group, where[recalled]))
        for index in np.flatnonzero((entries.verdicts > Verdict.REPLAY) & ~recalled).tolist():
            refuse(answer, int(where[index]), group, entries.table[index])

    def _answer_groups(self, answer: Answer, entries: Entries, start: int, tenant: int) -> None:
        """Answer entries of several groups, and of none."""
        table = entries.table
        numbers = group_of(table["handle"])
        for number in np.unique(numbers):
            positions = np.flatnonzero(numbers == number)
            some = Entries(table[positions])
            if number < len(self._groups):
                self._answer_group(answer, self._groups[number], some, positions + start, tenant)
            else:
                some.lrs[:], some.reasons[:], some.durable_steps[:] = np.nan, 0, -1
                answer.errors |= {int(position) + start: stale_handle() for position in positions}
            table[positions] = some.table
