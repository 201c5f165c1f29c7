"""The exactly-once rules, compiled: how an observation is answered and changes its run's record.

A pass over entries of one group is three loops. `admit` decides what each entry is, and advances the records
of the fresh ones; the group's policy advances their states; `settle` fills in every entry's learning rate,
and logs the fresh answers. Each loop takes the entries in order, so a message may hold any number of steps of
a run, and repeated ones.
"""

from __future__ import annotations

import enum
import math

import numpy as np
import numpy.typing as npt

from mlrs_core.advise import bounded
from mlrs_core.compiled import compiled
from mlrs_core.policy import RunTable
from mlrs_server.domain.handles import group_of, row_of
from mlrs_server.domain.observations import Table

DIVERGED_AFTER = 10
"""This many non-finite losses in a row make a run diverged."""


class AdviceReason(enum.IntEnum):
    """How an answer came about. The numbers are those of the contract."""

    FRESH = 1
    REPLAYED = 2
    HELD = 3


class RunStatus(enum.IntEnum):
    """The status of a run. The numbers are those of the contract."""

    ACTIVE = 1
    DIVERGED = 2
    FINISHED = 3


ADAPTED = 0x80
"""A flag in a record's `last_reason`: the newest step has had its meta update. That may have changed the
record's learning rate, so the store is asked for the one that was advised."""
WITH_EXTRAS = 0x40
"""A flag in a record's `last_reason`: the newest step came with extras (`extras.py`). If it is sent again,
the store or the log of extras tells whether it comes with the same ones."""
RESTORE = 0x20
"""A flag beside an answer's reason, also where it is stored: the training is to restore a saved state."""
REASON = 0x1F
"""The bits of a record's `last_reason`, and of a stored reason, that are the `AdviceReason`."""


class Verdict(enum.IntEnum):
    """How an entry is treated."""

    FRESH = 1
    """The run's next step."""
    REPLAY = 2
    """The run's newest step, with the loss that it was answered for."""
    OTHER_LOSS = 3
    """The run's newest step, with another loss."""
    RECALL = 4
    """An older step, or the newest if it had its meta update or came with extras: its answer is in the
    group's log or the store."""
    AHEAD = 5
    """A step beyond the run's next one."""
    FINISHED = 6
    """A step not answered before, of a finished run."""
    STALE_HANDLE = 7
    """A handle that no run of this group and of the caller's tenant has."""
    RANK_REPORT = 8
    """A step not answered before, of a run whose ranks all report: their losses are reduced to one first."""
    NO_RANKS = 9
    """A rank above 0, of a run that takes observations of rank 0 only."""


_FRESH, _REPLAY, _OTHER_LOSS, _RECALL, _AHEAD, _FINISHED, _STALE, _RANK_REPORT, _NO_RANKS = (
    int(verdict) for verdict in Verdict
)
_IS_FRESH, _IS_REPLAYED, _IS_HELD = (int(reason) for reason in AdviceReason)

_ACTIVE, _DIVERGED, _DONE = (int(status) for status in RunStatus)

RECORD = np.dtype(
    [
        ("handle", np.uint64),
        ("key", np.int64),
        ("next_step", np.int64),
        ("durable_step", np.int64),
        ("last_loss", np.float64),
        ("last_lr", np.float64),
        ("bad_losses", np.int64),
        ("seen", np.int64),
        ("tenant", np.uint32),
        ("last_reason", np.uint8),
        ("status", np.uint8),
        ("shard", np.uint8),
        ("reduces_ranks", np.uint8),
    ],
    align=True,
)
"""The mutable fields of a run, without its state. A handle of 0 marks a row that is closed or free; `seen` is
the generation of its group in which the run was last observed; `tenant` is a number of `tenancy.py`, `shard`
one of `shards.py`; `reduces_ranks` is 1 if the losses of ranks are reduced to one first."""
Records = npt.NDArray[np.void]
"""The records of a group's runs, (capacity,) of `RECORD`."""


@compiled
def common_group(entries: Table) -> int:
    """Return the group of all entries, (n,) of `ENTRY` with n > 0; -1 if they are of several groups."""
    first = group_of(np.int64(entries[0].handle))
    for index in range(1, len(entries)):
        if group_of(np.int64(entries[index].handle)) != first:
            return -1
    return int(first)


@compiled
def admit(records: Records, entries: Table, tenant: int) -> int:
    """Decide each entry's verdict, in order, and advance the records of the fresh ones; return their number.

    Args:
        records: of the group; changed in place.
        entries: (n,) of `ENTRY`, all of the group; `row`, `verdict`, `expected` and `before` are filled.
        tenant: the number of the caller's tenant; handles of other tenants are stale.
    """
    fresh = 0
    for index in range(len(entries)):
        entry = entries[index]
        row = row_of(np.int64(entry.handle))
        if (
            row >= len(records)
            or records[row].handle != entry.handle
            or entry.handle == 0
            or records[row].tenant != tenant
        ):
            entry.row, entry.verdict, entry.expected = 0, _STALE, 0
            continue
        record = records[row]
        entry.row, entry.expected = row, record.next_step
        newest_recorded = entry.step == record.next_step - 1 and (
            record.last_reason & ADAPTED or (record.last_reason & WITH_EXTRAS and not record.reduces_ranks)
        )
        if entry.rank > 0 and not record.reduces_ranks:
            entry.verdict = _NO_RANKS
        elif entry.step < record.next_step - 1 or newest_recorded:
            entry.verdict = _RECALL
        elif entry.step < record.next_step:
            same = (
                record.reduces_ranks
                or entry.loss == record.last_loss
                or (math.isnan(entry.loss) and math.isnan(record.last_loss))
            )
            entry.verdict = _REPLAY if same else _OTHER_LOSS
        elif record.status == _DONE:
            entry.verdict = _FINISHED
        elif record.reduces_ranks:
            entry.verdict = _RANK_REPORT
        elif entry.step > record.next_step:
            entry.verdict = _AHEAD
        else:
            entry.verdict = _FRESH
            entry.before = record.last_loss
            record.next_step = entry.step + 1
            record.last_loss = entry.loss
            fresh += 1
    return fresh


def undo(records: Records, entries: Table) -> None:
    """Undo `admit` after the policy failed."""
    for entry in entries[entries["verdict"] == Verdict.FRESH][::-1]:
        records["next_step"][entry["row"]] = entry["step"]
        records["last_loss"][entry["row"]] = entry["before"]


@compiled
def settle(
    records: Records, table: RunTable, entries: Table, answered: Table, count: int, generation: int
) -> int:
    """Fill in the learning rates, log the fresh answers; return the number of fresh ones without a remark.

    They are neither held nor ask to restore a saved state.

    Args:
        records: of the group; changed in place.
        table: the configs of its runs.
        entries: (n,) of `ENTRY` as `admit` filled it, with the policy's `lr` where the entry is fresh and its
            loss finite, and `RESTORE` as the `reason` of fresh entries that raise an alarm; `lr`, `reason`
            and `durable_step` are filled.
        answered: of `ANSWERED`; the fresh answers are written to it from index `count` on.
        count: the number of answers in `answered` already.
        generation: the group's current generation.
    """
    plain = 0
    for index in range(len(entries)):
        entry = entries[index]
        restore = entry.reason & RESTORE
        entry.reason = 0
        if entry.verdict == _STALE:
            entry.lr, entry.durable_step = math.nan, -1
            continue
        record, run = records[entry.row], table[entry.row]
        entry.durable_step = record.durable_step
        record.seen = generation
        if entry.verdict == _FRESH:
            held = not math.isfinite(entry.loss)
            entry.lr = bounded(entry.loss, entry.lr, record.last_lr, run.factor, run.min_lr, run.max_lr)
            entry.reason = (_IS_HELD if held else _IS_FRESH) | restore
            record.last_lr, record.last_reason = entry.lr, entry.reason
            plain += entry.reason == _IS_FRESH
            record.bad_losses = record.bad_losses + 1 if held else 0
            record.status = _DIVERGED if record.bad_losses >= DIVERGED_AFTER else _ACTIVE
            answer = answered[count]
            answer.row, answer.step, answer.loss = entry.row, entry.step, entry.loss
            answer.lr, answer.reason = entry.lr, entry.reason
            count += 1
        elif entry.verdict == _REPLAY:
            entry.lr, entry.reason = record.last_lr, _IS_REPLAYED | (record.last_reason & RESTORE)
        else:
            entry.lr = math.nan
    return plain
