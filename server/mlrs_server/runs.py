"""Live runs in arrays: structure of arrays, a row a run, a group a model or a schedule's shape."""

from __future__ import annotations

import enum
import secrets
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from mlrs_core.advise import advise
from mlrs_core.config import RunConfig
from mlrs_core.policy import Floats, Policy, RunColumns, States, Steps

Handles = npt.NDArray[np.uint64]
"""Run handles: 32 random bits, 12 bits of group, 20 bits of row. Never 0."""
Rows = npt.NDArray[np.intp]
"""Indices of rows of a group."""
Bytes = npt.NDArray[np.uint8]
"""Reasons and statuses as small numbers."""

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


@dataclass(frozen=True, kw_only=True)
class RunSnapshot:
    """All of a run that moves, after some step."""

    status: RunStatus
    next_step: int
    last_loss: float
    """The last loss observed; NaN before the first."""
    last_lr: float
    """The last learning rate advised; NaN before the first."""
    last_reason: int
    """The last `AdviceReason`; 0 before the first."""
    bad_losses: int
    """How many of the last losses, without a gap, were not finite."""
    state: npt.NDArray[np.float32]
    """The policy's state, (state_size,)."""


@dataclass(frozen=True)
class Advanced:
    """What a step did to some rows, all (n,)."""

    lrs: Floats
    reasons: Bytes


class RunGroup:
    """The live runs of one model, or of one shape of a schedule.

    Columns grow by doubling and rows are reused. Row i of every column is one run; a row whose handle
    is 0 is closed, or free.
    """

    def __init__(self, index: int, model_digest: str, policy: Policy) -> None:
        """Make an empty group; `index` is its number in handles."""
        self.index = index
        self.model_digest = model_digest
        self.policy = policy
        self.run_ids: list[str] = []
        self._free: list[int] = []
        self._allocate(0)

    def _allocate(self, capacity: int) -> None:
        self.handles: Handles = np.zeros(capacity, np.uint64)
        self.keys: Steps = np.zeros(capacity, np.int64)
        self.next_step: Steps = np.zeros(capacity, np.int64)
        self.durable_step: Steps = np.zeros(capacity, np.int64)
        self.last_loss: Floats = np.zeros(capacity)
        self.last_lr: Floats = np.zeros(capacity)
        self.last_reason: Bytes = np.zeros(capacity, np.uint8)
        self.status: Bytes = np.zeros(capacity, np.uint8)
        self.bad_losses: Steps = np.zeros(capacity, np.int64)
        self.columns = RunColumns.empty(capacity)
        self.states: States = np.zeros((capacity, self.policy.state_size), np.float32)

    def _grow(self) -> None:
        old, size = dict(vars(self)), len(self.handles)
        self._allocate(max(8, 2 * size))
        for name, value in old.items():
            if isinstance(value, np.ndarray):
                vars(self)[name][:size] = value
        for column in fields(RunColumns):
            getattr(self.columns, column.name)[:size] = getattr(old["columns"], column.name)
        self.run_ids.extend([""] * (len(self.handles) - size))
        self._free.extend(range(len(self.handles) - 1, size - 1, -1))

    def is_empty(self) -> bool:
        """Return whether no row is in use."""
        return len(self._free) == len(self.handles)

    def is_full(self) -> bool:
        """Return whether every row that can be is in use."""
        return not self._free and len(self.handles) >= MAX_ROWS

    def reserve(self) -> int:
        """Return a row that is in use from now on, closed until `put`. The group must not be full."""
        if not self._free:
            self._grow()
        return self._free.pop()

    def put(self, row: int, run_id: str, key: int, config: RunConfig, snapshot: RunSnapshot) -> None:
        """Put a run into a row that is reserved or closed, as stored, under a new handle."""
        self.run_ids[row] = run_id
        self.keys[row] = key
        self.columns.put(row, config)
        self.next_step[row] = snapshot.next_step
        self.durable_step[row] = snapshot.next_step - 1
        self.last_loss[row] = snapshot.last_loss
        self.last_lr[row] = snapshot.last_lr
        self.last_reason[row] = snapshot.last_reason
        self.status[row] = snapshot.status
        self.bad_losses[row] = snapshot.bad_losses
        self.states[row] = snapshot.state
        self.handles[row] = make_handle(self.index, row)

    def done_rows(self) -> Rows:
        """Return the open rows of runs that are finished and stored to their last step."""
        stored = self.durable_step == self.next_step - 1
        return np.flatnonzero((self.handles != 0) & (self.status == RunStatus.FINISHED) & stored)

    def close(self, row: int) -> int:
        """Make a row's handle stale, and return it: the row takes no more observations."""
        handle = int(self.handles[row])
        self.handles[row] = 0
        return handle

    def reopen(self, row: int, handle: int) -> None:
        """Give a closed row its handle back."""
        self.handles[row] = handle

    def free(self, row: int) -> None:
        """Give a closed row back."""
        self.run_ids[row] = ""
        self._free.append(row)

    def advance(self, rows: Rows, steps: Steps, losses: Floats) -> Advanced:
        """Answer one fresh observation for each of some distinct rows, and move them on.

        `steps` must be the rows' next steps, and none of the runs may be finished.
        """
        lrs, moved, held = advise(
            self.policy, self.states[rows], steps, losses, self.last_lr[rows], self.columns.take(rows)
        )
        reasons = np.where(held, AdviceReason.HELD, AdviceReason.FRESH).astype(np.uint8)
        bad = np.where(held, self.bad_losses[rows] + 1, 0)
        self.states[rows] = moved
        self.next_step[rows] = steps + 1
        self.last_loss[rows] = losses
        self.last_lr[rows] = lrs
        self.last_reason[rows] = reasons
        self.bad_losses[rows] = bad
        self.status[rows] = np.where(bad >= DIVERGED_AFTER, RunStatus.DIVERGED, RunStatus.ACTIVE)
        return Advanced(lrs, reasons)

    def snapshot(self, row: int) -> RunSnapshot:
        """Return a copy of all of a run that moves."""
        return RunSnapshot(
            status=RunStatus(int(self.status[row])),
            next_step=int(self.next_step[row]),
            last_loss=float(self.last_loss[row]),
            last_lr=float(self.last_lr[row]),
            last_reason=int(self.last_reason[row]),
            bad_losses=int(self.bad_losses[row]),
            state=self.states[row].copy(),
        )


def first_snapshot(policy: Policy) -> RunSnapshot:
    """Return the snapshot of a run before its first step."""
    return RunSnapshot(
        status=RunStatus.ACTIVE,
        next_step=0,
        last_loss=float("nan"),
        last_lr=float("nan"),
        last_reason=0,
        bad_losses=0,
        state=policy.init_state(1)[0],
    )


def make_handle(group: int, row: int) -> int:
    """Return a fresh handle for a row of a group."""
    return (1 + secrets.randbelow(2**32 - 1)) << 32 | group << ROW_BITS | row


def split_handles(handles: Handles) -> tuple[Rows, Rows]:
    """Return the groups and the rows that some handles name."""
    low = handles.astype(np.int64)
    groups = (low >> ROW_BITS) & (MAX_GROUPS - 1)
    return groups.astype(np.intp), (low & (MAX_ROWS - 1)).astype(np.intp)


class Replay:
    """Recomputes a run from its losses, by the code that first computed it."""

    def __init__(self, policy: Policy, config: RunConfig) -> None:
        """Begin before the first step."""
        self._group = RunGroup(0, "", policy)
        row = self._group.reserve()
        self._group.put(row, "", 0, config, first_snapshot(policy))
        self._row = np.array([row])

    def feed(self, losses: Floats) -> Floats:
        """Take the next losses, (n,); return their learning rates, (n,)."""
        start = int(self._group.next_step[self._row[0]])
        steps = np.arange(start, start + len(losses))
        lrs = np.empty(len(losses))
        for index in range(len(losses)):
            one = slice(index, index + 1)
            lrs[one] = self._group.advance(self._row, steps[one], losses[one]).lrs
        return lrs

    def snapshot(self) -> RunSnapshot:
        """Return the run after the losses fed so far."""
        return self._group.snapshot(int(self._row[0]))
