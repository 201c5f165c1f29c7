"""Exactly once, compiled: what becomes of an observation, and what a run's record is after it.

A pass over some entries of one group is three loops. `admit` says what each entry is, and moves the records
of those that are fresh on; the group's policy advances these; `settle` says what every entry's learning rate
is, and writes down what was said. All take entries in their order, so a message may hold any number of steps
of a run, repeats among them.
"""

from __future__ import annotations

import enum
import math

import numpy as np
import numpy.typing as npt

from mlrs_core.advise import bounded
from mlrs_core.compiled import compiled
from mlrs_core.policy import RunTable
from mlrs_server.domain.entries import Table
from mlrs_server.domain.handles import group_of, row_of

DIVERGED_AFTER = 10
"""So many non-finite losses in a row make a run diverged."""


class AdviceReason(enum.IntEnum):
    """Why an advice says what it says. The numbers are those of the contract."""

    FRESH = 1
    REPLAYED = 2
    HELD = 3


class RunStatus(enum.IntEnum):
    """Where a run stands. The numbers are those of the contract."""

    ACTIVE = 1
    DIVERGED = 2
    FINISHED = 3


ADAPTED = 0x80
"""In a record's `last_reason`: the newest step has had its meta update. Its learning rate may be another
since, so what was advised for it is asked of the store."""


class Verdict(enum.IntEnum):
    """What an entry is."""

    FRESH = 1
    """The run's next step."""
    REPLAY = 2
    """Its newest step, with the loss that it was answered for."""
    OTHER_LOSS = 3
    """Its newest step, with another."""
    RECALL = 4
    """An older step, or the newest after its meta update: what was answered is in the group's log, or in the
    store."""
    AHEAD = 5
    """A step beyond the next."""
    FINISHED = 6
    """Any step not answered before, of a run that is finished."""
    STALE_HANDLE = 7
    """No run of this group, and of the caller's tenant, has the handle."""
    GATHER = 8
    """A step not answered before of a run whose ranks all report: their losses are gathered first."""
    NO_RANKS = 9
    """Of a rank beyond 0, and the run takes observations of rank 0 alone."""


_FRESH, _REPLAY, _OTHER_LOSS, _RECALL, _AHEAD, _FINISHED, _STALE, _GATHER, _NO_RANKS = (
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
        ("gathers", np.uint8),
    ],
    align=True,
)
"""What moves of a run, but for its state. A handle of 0 is a row that is closed, or free; `seen` is the
generation of its group in which the run was last observed; `tenant` is the number of the run's (`names.py`),
`shard` that of `shards.py`; `gathers` is 1 where the losses of ranks are to become one first."""
Records = npt.NDArray[np.void]
"""The records of a group's runs, (capacity,) of `RECORD`."""


@compiled
def common_group(entries: Table) -> int:
    """Return the group that all entries, (n,) of `ENTRY` with n > 0, name; -1 if they name several."""
    first = group_of(np.int64(entries[0].handle))
    for index in range(1, len(entries)):
        if group_of(np.int64(entries[index].handle)) != first:
            return -1
    return int(first)


@compiled
def admit(records: Records, entries: Table, tenant: int) -> int:
    """Say what each entry is, in order, and move the fresh ones' runs on; return how many are fresh.

    Args:
        records: of the group; changed in place.
        entries: (n,) of `ENTRY`, all of the group; `row`, `verdict`, `expected` and `before` are filled.
        tenant: the number of the caller's; to it, the handles of others are stale.
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
        newest_moved = record.last_reason & ADAPTED and entry.step == record.next_step - 1
        if entry.rank > 0 and not record.gathers:
            entry.verdict = _NO_RANKS
        elif entry.step < record.next_step - 1 or newest_moved:
            entry.verdict = _RECALL
        elif entry.step < record.next_step:
            same = (
                record.gathers
                or entry.loss == record.last_loss
                or (math.isnan(entry.loss) and math.isnan(record.last_loss))
            )
            entry.verdict = _REPLAY if same else _OTHER_LOSS
        elif record.status == _DONE:
            entry.verdict = _FINISHED
        elif record.gathers:
            entry.verdict = _GATHER
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
    """Take back what `admit` did, since the policy failed."""
    for entry in entries[entries["verdict"] == Verdict.FRESH][::-1]:
        records["next_step"][entry["row"]] = entry["step"]
        records["last_loss"][entry["row"]] = entry["before"]


@compiled
def settle(
    records: Records, table: RunTable, entries: Table, answered: Table, count: int, generation: int
) -> int:
    """Say what the learning rates are, and write down what was said; return how many are fresh, not held.

    Args:
        records: of the group; changed in place.
        table: the configs of its runs.
        entries: (n,) of `ENTRY` as `admit` filled it, with the policy's `lr` where the entry is fresh and its
            loss finite; `lr`, `reason` and `durable_step` are filled.
        answered: of `ANSWERED`, with room for the fresh ones ...
        count: ... from here on.
        generation: the group is in.
    """
    plain = 0
    for index in range(len(entries)):
        entry = entries[index]
        entry.reason = 0
        if entry.verdict == _STALE:
            entry.lr, entry.durable_step = math.nan, -1
            continue
        record, run = records[entry.row], table[entry.row]
        entry.durable_step = record.durable_step
        record.seen = generation
        if entry.verdict == _FRESH:
            held = not math.isfinite(entry.loss)
            entry.lr = bounded(entry.loss, entry.lr, record.last_lr, run.min_lr, run.max_lr)
            entry.reason = _IS_HELD if held else _IS_FRESH
            record.last_lr, record.last_reason = entry.lr, entry.reason
            plain += not held
            record.bad_losses = record.bad_losses + 1 if held else 0
            record.status = _DIVERGED if record.bad_losses >= DIVERGED_AFTER else _ACTIVE
            answer = answered[count]
            answer.row, answer.step, answer.loss = entry.row, entry.step, entry.loss
            answer.lr, answer.reason = entry.lr, entry.reason
            count += 1
        elif entry.verdict == _REPLAY:
            entry.lr, entry.reason = record.last_lr, _IS_REPLAYED
        else:
            entry.lr = math.nan
    return plain
