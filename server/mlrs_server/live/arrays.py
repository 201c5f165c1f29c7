"""Runs in memory as arrays: one row for each run, one group for each model or shape of a schedule."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlrs_core.adapting import AdaptivePolicy, MetaOutcome
from mlrs_core.adapting.kernel import AdaptiveKernel
from mlrs_core.compiled import clip
from mlrs_core.config import RanksConfig, RunConfig
from mlrs_core.policy import (
    NO_SIGNALS,
    RUN,
    Networks,
    Policy,
    Rows,
    RunTable,
    States,
    no_networks,
    put,
)
from mlrs_core.rescue import RescuingPolicy, share_of
from mlrs_server.domain.extras import inputs_of, is_sent
from mlrs_server.domain.handles import MAX_ROWS, make_handle
from mlrs_server.domain.ledger import (
    ADAPTED,
    REASON,
    RECORD,
    RESTORE,
    WITH_EXTRAS,
    AdviceReason,
    Records,
    RunStatus,
    Verdict,
    admit,
    settle,
    undo,
)
from mlrs_server.domain.observations import AnswerLog, Entries
from mlrs_server.domain.rank_reduction import Ranked
from mlrs_server.domain.run_snapshot import RunSnapshot, snapshot_of
from mlrs_server.domain.shards import SHARDS
from mlrs_server.domain.updates import MetaLog, MetaUpdate, WeightCheckpoints
from mlrs_server.tenancy import number_of, tenant_of

SMALLEST = 8
"""The smallest capacity of a group that is not empty, in rows."""


class Pass(NamedTuple):
    """The counts of a pass over some entries."""

    fresh: int
    """The number of entries that are the next step of their run."""
    plain: int
    """The number of fresh entries that are neither held nor have the flag `RESTORE`."""


class RunGroup:
    """The runs in memory of one model, or of one shape of a schedule.

    Arrays grow by doubling, and shrink once a quarter of them is enough. Rows are reused, the lowest first,
    so that rows in use stay at the front. A row whose handle is 0 is closed, or free.
    """

    def __init__(self, index: int, key: str, policy: Policy) -> None:
        """Make an empty group; `index` is its number in handles, `key` the `policy_key` of its runs."""
        self.index = index
        self.key = key
        self.policy = policy
        self.run_ids: list[str] = []  # by row, up to the highest ever in use; "" where the row is free
        self._free: list[int] = []  # a heap of the free rows among them
        self.records: Records = np.zeros(0, RECORD)
        self.table: RunTable = np.zeros(0, RUN)
        self.states: States = policy.init_state(0)
        self.networks: Networks = no_networks(policy, 0)
        self.log = AnswerLog()
        self.extras_log = AnswerLog.of_extras()
        self.meta = MetaLog()
        self.ranked: dict[int, Ranked] = {}
        """How ranks share the runs whose ranks all report, by row."""
        self.misses: dict[int, Counter[int]] = {}
        """In how many steps ranks were missing, by row and rank, since the run of the row is in memory."""
        self.generation = 0
        """Increases with time; a record holds the generation in which its run was last observed."""

    def _resize(self, capacity: int) -> None:
        for name in ("records", "table", "states"):
            old = getattr(self, name)
            new = np.zeros((capacity, *old.shape[1:]), old.dtype)
            count = min(capacity, len(old))
            new[:count] = old[:count]
            setattr(self, name, new)
        self._resize_networks(capacity)

    def _resize_networks(self, capacity: int) -> None:
        """Copy only the networks that were written: rows never written to take no memory."""
        old, self.networks = self.networks, no_networks(self.policy, capacity)
        own = np.flatnonzero(old[:capacity].any(axis=1))
        self.networks[own] = old[own]

    def is_empty(self) -> bool:
        """Return whether no row is in use."""
        return len(self._free) == len(self.run_ids)

    def is_full(self) -> bool:
        """Return whether as many rows are in use as handles can name."""
        return not self._free and len(self.run_ids) >= MAX_ROWS

    def reserve(self) -> int:
        """Return a free row, marked as in use and closed until `put`. The group must not be full."""
        if self._free:
            return heapq.heappop(self._free)
        row = len(self.run_ids)
        if row == len(self.records):
            self._resize(max(SMALLEST, 2 * row))
        self.run_ids.append("")
        return row

    def shrink(self) -> None:
        """Free the memory of unused rows at the end, if those in use need at most a quarter of it."""
        used, free = len(self.run_ids), set(self._free)
        while used - 1 in free:
            used -= 1
        if len(self.records) > SMALLEST and 4 * used <= len(self.records):
            del self.run_ids[used:]
            self._free = sorted(row for row in free if row < used)
            self._resize(max(SMALLEST, 2 * used))

    def put(
        self,
        row: int,
        run_id: str,
        key: int,
        config: RunConfig,
        snapshot: RunSnapshot,
        *,
        shard: int = 0,
        network: States | None = None,
        world_size: int = 0,
    ) -> None:
        """Put a run, as stored, into a row that is reserved or closed, under a new handle.

        `network` is its adapted weights, (network_size,), if it has any. With a `world_size` of 0, the run
        takes losses of rank 0 alone.
        """
        self.meta.forget(row)
        if self.policy.network_size and (network is not None or self.networks[row].any()):
            self.networks[row] = 0.0 if network is None else network
        self.run_ids[row] = run_id
        put(self.table, row, config)
        self.states[row] = snapshot.state
        self.records[row] = (
            make_handle(self.index, row),
            key,
            snapshot.next_step,
            snapshot.next_step - 1,
            snapshot.last_loss,
            snapshot.last_lr,
            snapshot.bad_losses,
            self.generation,
            number_of(tenant_of(run_id)),
            snapshot.last_reason,
            snapshot.status,
            shard,
            0,
        )
        self.share(row, config.ranks, world_size)

    def share(self, row: int, ranks: RanksConfig | None, world_size: int) -> None:
        """Set how many ranks share the run of a row from its next step on, and how losses are reduced."""
        is_reduced = world_size > 0 and ranks is not None
        self.records["reduces_ranks"][row] = is_reduced
        if is_reduced and ranks is not None:
            self.ranked[row] = Ranked(ranks, world_size)
        else:
            self.ranked.pop(row, None)

    def note_misses(self, row: int, reported: Collection[int]) -> None:
        """Count the ranks of a run, other than those that reported, as missing in a step."""
        missing = set(range(self.ranked[row].world_size)).difference(reported)
        self.misses.setdefault(row, Counter()).update(missing)

    def done_rows(self) -> npt.NDArray[np.intp]:
        """Return the open rows of runs that are finished and stored to their last step."""
        return np.flatnonzero(self._stored() & (self.records["status"] == RunStatus.FINISHED))

    def rows_of(self, shards: Collection[int]) -> npt.NDArray[np.intp]:
        """Return the rows of the runs of some shards."""
        among = np.zeros(SHARDS, np.bool_)
        among[list(shards)] = True
        return np.flatnonzero(among[self.records["shard"]] & (self.records["key"] > 0))

    def idle_rows(self, generation: int) -> npt.NDArray[np.intp]:
        """Return the open rows of runs stored to their last step and last observed before a generation."""
        return np.flatnonzero(self._stored() & (self.records["seen"] < generation))

    def _stored(self) -> npt.NDArray[np.bool_]:
        records = self.records
        stored: npt.NDArray[np.bool_] = records["durable_step"] == records["next_step"] - 1
        stored &= records["handle"] != 0
        return stored

    def close(self, row: int) -> int:
        """Make a row's handle stale, and return that handle. The row takes no more observations."""
        handle = int(self.records["handle"][row])
        self.records["handle"][row] = 0
        return handle

    def renew(self, row: int) -> int:
        """Give a row a new handle, and return the old one, which becomes stale."""
        handle = int(self.records["handle"][row])
        self.records["handle"][row] = make_handle(self.index, row)
        return handle

    def reopen(self, row: int, handle: int) -> None:
        """Restore the handle of a closed row."""
        self.records["handle"][row] = handle

    def free(self, row: int) -> None:
        """Mark a closed row as free."""
        self.run_ids[row] = ""
        self.ranked.pop(row, None)
        self.misses.pop(row, None)
        self.records[row] = np.zeros((), RECORD)
        heapq.heappush(self._free, row)

    def answer(self, entries: Entries, tenant: int = 0) -> Pass:
        """Answer entries of this group, in order: fill them, and log the answers to the fresh ones.

        Args:
            entries: the entries; changed in place.
            tenant: the number of the caller's tenant.
        """
        log = self.log
        log.reserve(len(entries))  # nothing may fail once runs have moved
        if entries.extras is not None:
            self.extras_log.reserve(len(entries))
        fresh = admit(self.records, entries.table, tenant)
        try:
            if fresh == len(entries):
                self._advance(entries)
            elif fresh:
                which = entries.verdicts == Verdict.FRESH
                some = entries.part(which)
                self._advance(some)
                entries.lrs[which], entries.reasons[which] = some.lrs, some.reasons
        except Exception:
            undo(self.records, entries.table)
            raise
        plain = settle(self.records, self.table, entries.table, log.table, log.count, self.generation)
        log.count += fresh
        if entries.extras is not None:
            self._keep_extras(entries)
        return Pass(fresh, plain)

    def _keep_extras(self, entries: Entries) -> None:
        """Log the extras of fresh entries; have the record tell whether repeated ones came with the same."""
        assert entries.extras is not None  # noqa: S101 # for the type checker
        is_alone = self.records["reduces_ranks"][entries.rows] == 0
        repeated = (entries.verdicts == Verdict.REPLAY) & is_alone
        entries.verdicts[repeated], entries.reasons[repeated] = Verdict.RECALL, 0
        entries.lrs[repeated] = np.nan
        kept = np.flatnonzero((entries.verdicts == Verdict.FRESH) & is_sent(entries.extras))
        rows, steps, log = entries.rows[kept], entries.steps[kept], self.extras_log
        new = log.table[log.count : log.count + len(kept)]
        new["row"], new["step"], new["extras"] = rows, steps, entries.extras[kept]
        log.count += len(kept)
        newest = steps == self.records["next_step"][rows] - 1
        self.records["last_reason"][rows[newest]] |= WITH_EXTRAS

    def _advance(self, entries: Entries) -> None:
        """Have the policy advance runs. Kernels are compiled for contiguous columns only."""
        rows, steps, losses, lrs = entries.rows, entries.steps, entries.losses, entries.lrs
        whole = len(entries) == 1  # such columns are contiguous as they are
        if not whole:
            rows, steps = np.ascontiguousarray(rows), np.ascontiguousarray(steps)
            losses, lrs = np.ascontiguousarray(losses), np.empty_like(losses)
        signals = NO_SIGNALS if entries.extras is None else inputs_of(entries.extras)
        inputs = (self.states, self.networks, self.table, rows, steps, losses, signals, lrs)
        if isinstance(self.policy, RescuingPolicy):
            alarms = np.zeros(len(rows), np.uint8)
            self.policy.advance(*inputs, alarms)
            entries.reasons[:] = alarms * np.uint8(RESTORE)
        else:
            self.policy.advance(*inputs)
        if not whole:
            entries.lrs[:] = lrs

    def adapt(self, row: int, alignment: float, validation_loss: float | None = None) -> MetaUpdate:
        """Apply the meta update of a run's newest step, which must have advice and no update yet.

        Where the step's loss was not finite, no weight changes.
        """
        policy, record = adaptive(self.policy), self.records[row]
        step, lr = int(record["next_step"]) - 1, float(record["last_lr"])
        outcome, log_change = MetaOutcome.IDLE, 0.0
        if int(record["last_reason"]) & REASON != AdviceReason.HELD:
            one = slice(row, row + 1)
            states, run = self.states[one, : policy.state_size], self.table[one].copy()
            if isinstance(self.policy, RescuingPolicy):
                run["factor"] *= share_of(self.states[row], step, int(run["horizon"][0]))
            adapted = policy.adapt(states, self.networks[one], run, 0, step, alignment)
            outcome, log_change = adapted.outcome, adapted.log_change
            if not math.isnan(adapted.lr):
                lr = clip(adapted.lr * run["factor"][0], run["min_lr"][0], run["max_lr"][0])
                self.records["last_lr"][row] = lr
        self.records["last_reason"][row] |= ADAPTED
        self.records["durable_step"][row] = min(int(record["durable_step"]), step - 1)
        update = MetaUpdate(step, alignment, validation_loss, outcome, lr, log_change)
        self.meta.add(row, int(record["key"]), update)
        return update

    def checkpoints_due(self, rows: Rows) -> WeightCheckpoints | None:
        """Return the adapted weights of rows, (k,), that are due to be stored, if any are."""
        due = self.meta.due(rows, self.records) if self.policy.network_size else []
        if not due:
            return None
        policy = adaptive(self.policy)
        updates = [policy.meta_counters(self.states[row]).updates for row in due]
        return WeightCheckpoints(
            due, self.records[due], self.states[due], self.networks[due], updates, policy.first_network()
        )

    def checkpoints_stored(self, stored: WeightCheckpoints) -> None:
        """Note that checkpoints were stored, for rows that still hold the same runs."""
        policy = adaptive(self.policy)
        for row, record, updates in zip(stored.rows, stored.records, stored.updates, strict=True):
            if self.records["key"][row] == record["key"]:
                since = policy.meta_counters(self.states[row]).updates - updates
                self.meta.begin(row, int(record["next_step"]), since)

    def snapshot(self, row: int) -> RunSnapshot:
        """Return a copy of a run's record and state."""
        return snapshot_of(self.records[row], self.states[row])


def adaptive(policy: Policy) -> AdaptivePolicy:
    """Return the policy of a group of runs in meta mode, typed as one that adapts.

    A state of theirs begins with that of this policy: with rescue, it is longer.
    """
    if isinstance(policy, RescuingPolicy):
        policy = policy.inner
    if not isinstance(policy, AdaptiveKernel):
        raise TypeError(f"{policy!r} does not adapt")
    return policy
