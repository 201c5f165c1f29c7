"""Groups of runs in memory, by the policy that serves the runs; how a full group gets free rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlrs_server.domain.handles import MAX_GROUPS, group_of, row_of
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.live.arrays import RunGroup
from mlrs_server.live.policies import policy_key, policy_of
from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.storage import NewRun

DROPPED_AT_ONCE = 1024
"""The number of finished runs dropped from a full group at a time: rare enough, and fast enough."""


@dataclass(slots=True)
class LiveRun:
    """The slot of a run in memory: its group and its row."""

    group: RunGroup
    row: int

    @property
    def record(self) -> np.void:
        """The run's record: a view of a row of `RECORD`."""
        record: np.void = self.group.records[self.row]
        return record

    @property
    def run_id(self) -> str:
        """The run's full name."""
        return self.group.run_ids[self.row]

    @property
    def handle(self) -> int:
        """The run's handle; 0 while it is closed."""
        return int(self.record["handle"])

    @property
    def status(self) -> RunStatus:
        """The run's status."""
        return RunStatus(int(self.record["status"]))

    @status.setter
    def status(self, status: RunStatus) -> None:
        self.group.records["status"][self.row] = status

    def has_unflushed(self) -> bool:
        """Return whether the run has answers that are not known to be stored."""
        return bool(self.record["durable_step"] < self.record["next_step"] - 1)


class RunGroups:
    """The groups of runs in memory, at most as many as handles can name."""

    def __init__(self, catalog: ModelCatalog, drop_done: Callable[[RunGroup, int | None], None]) -> None:
        """`drop_done` drops finished runs of a group, at most as many as its second argument says."""
        self.groups: list[RunGroup] = []
        self._group_by_key: dict[str, RunGroup] = {}
        self._catalog = catalog
        self._drop_done = drop_done

    def at(self, handle: int) -> LiveRun | None:
        """Return the slot of the run that a handle names, if it names one."""
        number, row = group_of(handle), row_of(handle)
        if not handle or number >= len(self.groups) or row >= len(self.groups[number].records):
            return None
        live = LiveRun(self.groups[number], row)
        return live if live.handle == handle else None

    def reserve(self, run: NewRun) -> LiveRun:
        """Return a free slot in the group of a run, marked as in use.

        Raises:
            AdvisorError: the run's model is damaged, or memory is full.
        """
        group = self._group_of(run)
        if group.is_full():
            self._drop_done(group, DROPPED_AT_ONCE)
        if group.is_full():
            raise _memory_full(
                run,
                f"{len(group.records)} runs of one model or schedule are in memory, the most that fit; "
                "finish or delete runs that are done",
            )
        return LiveRun(group, group.reserve())

    def _group_of(self, run: NewRun) -> RunGroup:
        """Return the group of a run's policy: an existing one, a new one, or an empty one to reuse."""
        key = policy_key(run)
        if (group := self._group_by_key.get(key)) is not None:
            return group
        policy = policy_of(run, self._catalog)
        if len(self.groups) < MAX_GROUPS:
            group = RunGroup(len(self.groups), key, policy)
            self.groups.append(group)
        else:
            index = self._vacated(run)
            del self._group_by_key[self.groups[index].key]
            group = self.groups[index] = RunGroup(index, key, policy)
        self._group_by_key[key] = group
        return group

    def _vacated(self, run: NewRun) -> int:
        """Return the index of a group without runs, if need be after dropping finished runs."""
        if not any(group.is_empty() for group in self.groups):
            for group in self.groups:
                self._drop_done(group, None)
        for group in self.groups:
            if group.is_empty():
                return group.index
        raise _memory_full(
            run,
            f"runs of {len(self.groups)} different models, settings of meta mode and schedule shapes are "
            "in memory, the most that fit; finish or delete all runs of one, or let runs share one "
            "(schedules that differ in base_lr, warmup and horizon alone do, and settings of meta mode that "
            "differ in `every` and `scope` alone)",
        )


def _memory_full(run: NewRun, problem: str) -> AdvisorError:
    """Return the error of a run that does not fit into memory."""
    field = "model" if run.config.schedule is None else "config.schedule"
    return AdvisorError(Reason.MEMORY_FULL, f"{field}: {problem}", field=field)
