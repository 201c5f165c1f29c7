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
from mlrs_core.policy import Floats, Rows, RunTable, Steps

Handles = npt.NDArray[np.uint64]
"""Run handles: 32 random bits, 12 bits of group, 20 bits of row. Never 0."""
Bytes = npt.NDArray[np.uint8]
"""Reasons, statuses and verdicts as small numbers."""
ROW_BITS, GROUP_BITS = 20, 12
MAX_ROWS, MAX_GROUPS = 2**ROW_BITS, 2**GROUP_BITS
"""The most runs of a group that are in memory at once, and the most groups."""
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


class Verdict(enum.IntEnum):
    """What an entry is."""

    FRESH = 1
    """The run's next step."""
    REPLAY = 2
    """Its newest step, with the loss that it was answered for."""
    OTHER_LOSS = 3
    """Its newest step, with another."""
    RECALL = 4
    """An older step: what was answered is in the store."""
    AHEAD = 5
    """A step beyond the next."""
    FINISHED = 6
    """Any step not answered before, of a run that is finished."""
    STALE_HANDLE = 7
    """No run of this group has the handle."""


_FRESH, _REPLAY, _OTHER_LOSS, _RECALL, _AHEAD, _FINISHED, _STALE = (int(verdict) for verdict in Verdict)
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
        ("last_reason", np.uint8),
        ("status", np.uint8),
    ],
    align=True,
)
"""What moves of a run, but for its state; a handle of 0 is a row that is closed, or free."""
Records = npt.NDArray[np.void]
"""The records of a group's runs, (capacity,) of `RECORD`."""


@compiled
def common_group(handles: Handles) -> int:
    """Return the group that all handles, (n,) with n > 0, name; -1 if they name several."""
    first = (np.int64(handles[0]) >> ROW_BITS) & (MAX_GROUPS - 1)
    for entry in range(1, len(handles)):
        if (np.int64(handles[entry]) >> ROW_BITS) & (MAX_GROUPS - 1) != first:
            return -1
    return int(first)


@compiled
def admit(
    records: Records,
    handles: Handles,
    steps: Steps,
    losses: Floats,
    rows: Rows,
    verdicts: Bytes,
    expected: Steps,
    before: Floats,
) -> int:
    """Say what each entry is, in order, and move the fresh ones' runs on; return how many are fresh.

    Args:
        records: of the group; changed in place.
        handles: (n,), all of the group.
        steps: (n,).
        losses: (n,).
        rows: (n,), filled; 0 where the handle is stale.
        verdicts: (n,), filled.
        expected: (n,), filled with the steps that the runs expect next, before the entry.
        before: (n,), filled where an entry is fresh: the run's last loss until then, for `undo`.
    """
    fresh = 0
    for entry in range(len(handles)):
        handle, step, loss = handles[entry], steps[entry], losses[entry]
        row = np.int64(handle) & (MAX_ROWS - 1)
        if row >= len(records) or records[row].handle != handle or handle == 0:
            rows[entry], verdicts[entry], expected[entry] = 0, _STALE, 0
            continue
        record = records[row]
        rows[entry], expected[entry] = row, record.next_step
        if step < record.next_step - 1:
            verdicts[entry] = _RECALL
        elif step < record.next_step:
            last = record.last_loss
            same = loss == last or (math.isnan(loss) and math.isnan(last))
            verdicts[entry] = _REPLAY if same else _OTHER_LOSS
        elif record.status == _DONE:
            verdicts[entry] = _FINISHED
        elif step > record.next_step:
            verdicts[entry] = _AHEAD
        else:
            verdicts[entry] = _FRESH
            before[entry] = record.last_loss
            record.next_step = step + 1
            record.last_loss = loss
            fresh += 1
    return fresh


def undo(records: Records, rows: Rows, steps: Steps, verdicts: Bytes, before: Floats) -> None:
    """Take back what `admit` did, since the policy failed."""
    for entry in np.flatnonzero(verdicts == Verdict.FRESH)[::-1]:
        records["next_step"][rows[entry]] = steps[entry]
        records["last_loss"][rows[entry]] = before[entry]


@compiled
def settle(
    records: Records,
    table: RunTable,
    rows: Rows,
    losses: Floats,
    verdicts: Bytes,
    lrs: Floats,
    reasons: Bytes,
    durable_steps: Steps,
) -> int:
    """Say what the learning rates are, and write down what was said; return how many are fresh, not held.

    Args:
        records: of the group; changed in place.
        table: the configs of its runs.
        rows: (n,), as `admit` filled it.
        losses: (n,).
        verdicts: (n,), as `admit` filled it.
        lrs: (n,), the policy's of the fresh entries with finite losses; changed to what is advised, NaN
            where nothing is.
        reasons: (n,), filled; 0 where nothing is advised.
        durable_steps: (n,), filled; -1 where the handle is stale.
    """
    plain = 0
    for entry in range(len(rows)):
        verdict, row = verdicts[entry], rows[entry]
        reasons[entry] = 0
        if verdict == _STALE:
            lrs[entry], durable_steps[entry] = math.nan, -1
            continue
        record = records[row]
        durable_steps[entry] = record.durable_step
        if verdict == _FRESH:
            held = not math.isfinite(losses[entry])
            lr = bounded(losses[entry], lrs[entry], record.last_lr, table[row].min_lr, table[row].max_lr)
            record.last_lr = lrs[entry] = lr
            record.last_reason = reasons[entry] = _IS_HELD if held else _IS_FRESH
            plain += not held
            record.bad_losses = record.bad_losses + 1 if held else 0
            record.status = _DIVERGED if record.bad_losses >= DIVERGED_AFTER else _ACTIVE
        elif verdict == _REPLAY:
            lrs[entry], reasons[entry] = record.last_lr, _IS_REPLAYED
        else:
            lrs[entry] = math.nan
    return plain
