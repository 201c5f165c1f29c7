"""Recorded answers: read from a group's log of answers that are not stored yet, else from the store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from mlrs_core.policy import Rows, Steps
from mlrs_server.domain.extras import Extras, agree, difference, find_sent, none_sent
from mlrs_server.domain.ledger import RESTORE, AdviceReason
from mlrs_server.domain.observations import ANSWERED, Entries, Table, find_answers
from mlrs_server.errors import AdvisorError, other_extras, record_lacking, stale_handle, stale_step
from mlrs_server.live.answers import Answer, same_losses
from mlrs_server.live.arrays import RunGroup
from mlrs_server.live.replay import PAGE
from mlrs_server.live.stored_runs import StoredRuns
from mlrs_server.storage import Observations, Store


class Recaller:
    """Repeats the recorded answers of steps. Used from one event loop."""

    def __init__(self, stored: StoredRuns) -> None:
        """Read older answers from `stored`."""
        self._stored = stored

    async def recall(self, answer: Answer) -> None:
        """Fill the entries whose answers are recorded, in place, from memory or from the store."""
        recalls, answer.recalls = answer.recalls, []
        for group, positions in recalls:
            entries = answer.entries.part(positions)
            sent = none_sent(len(entries)) if entries.extras is None else entries.extras
            try:
                given, extras = await self._given(group, entries)
            except AdvisorError as error:
                answer.errors |= dict.fromkeys(positions.tolist(), error)
                continue
            is_reduced = (
                group.records["reduces_ranks"][entries.rows] != 0
            )  # then each rank has a loss of its own
            same = same_losses(given["loss"], entries.losses) & agree(extras, sent)
            right = (given["reason"] != 0) & (is_reduced | same)
            answer.entries.lrs[positions[right]] = given["lr"][right]
            answer.entries.reasons[positions[right]] = AdviceReason.REPLAYED | (
                given["reason"][right] & RESTORE
            )
            for index in np.flatnonzero(~right).tolist():
                problem = await self._problem(
                    group, entries.table[index], given[index], extras[index], sent[index]
                )
                answer.errors[int(positions[index])] = problem

    async def _given(self, group: RunGroup, entries: Entries) -> tuple[Table, Extras]:
        """Return the recorded answers to entries of open runs, (k,) of `ANSWERED`, and their extras.

        The reason is 0 where the record cannot be read, or where the run has left memory meanwhile.
        """
        given = np.zeros(len(entries), ANSWERED)
        rows, steps = np.ascontiguousarray(entries.rows), np.ascontiguousarray(entries.steps)
        keys = group.records["key"][rows]
        unstored, sent = group.log.unstored(), group.extras_log.unstored()  # all other answers are stored
        extras = await asyncio.to_thread(_find, unstored, sent, rows, steps, given)
        missing = np.flatnonzero((given["reason"] == 0) & (group.records["handle"][rows] == entries.handles))
        for start in range(0, len(missing), PAGE):
            some = missing[start : start + PAGE]
            record = await self._stored.in_store(partial(_recalled, keys=keys[some], steps=steps[some]))
            given["loss"][some], given["lr"][some] = record.losses, record.lrs
            given["reason"][some] = record.reasons
            extras[some[record.extras.positions]] = record.extras.values
        return given, extras

    async def _problem(
        self, group: RunGroup, entry: np.void, given: np.void, recorded: Extras, sent: Extras
    ) -> AdvisorError:
        """Return the error of an entry whose recorded answer does not fit or cannot be read.

        `recorded` and `sent` are its extras, (WIDTH,).
        """
        row, step = int(entry["row"]), int(entry["step"])
        if group.records["handle"][row] != entry["handle"]:  # the run was rewound or dropped meanwhile
            return stale_handle()
        run_id, record = group.run_ids[row], group.records[row]
        if given["reason"] != 0:
            expected = int(record["next_step"])
            if same_losses(given["loss"], entry["loss"]):
                return other_extras(run_id, step, difference(recorded, sent), expected)
            return stale_step(run_id, step, float(given["loss"]), expected)
        key = int(record["key"])
        try:
            await self._stored.in_store(lambda store: store.read(key, step, 1))
        except AdvisorError as error:
            return error
        return record_lacking(run_id, step)


def _find(unstored: Sequence[Table], sent: Sequence[Table], rows: Rows, steps: Steps, given: Table) -> Extras:
    """Fill the answers to steps of rows, (k,) each, that are in a log that is not stored yet.

    Return the extras in such a log that these steps came with, (k, WIDTH).
    """
    for answers in unstored:
        positions = np.empty_like(steps)
        find_answers(answers, rows, steps, np.zeros(rows.max() + 1, np.int64), positions)
        found = positions >= 0
        given[found] = answers[positions[found]]
    both = np.concatenate(sent)
    return find_sent(both, rows, steps) if len(both) else none_sent(len(rows))


def _recalled(store: Store, keys: npt.NDArray[np.int64], steps: Steps) -> Observations:
    return store.recall(keys, steps)
