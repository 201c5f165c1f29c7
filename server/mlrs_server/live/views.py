"""A run as callers see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlrs_core.adapting import MetaCounters, counters_of
from mlrs_core.config import RunConfig
from mlrs_server.domain.run_snapshot import RunSnapshot
from mlrs_server.domain.updates import MetaUpdate
from mlrs_server.live.arrays import adaptive
from mlrs_server.live.policies import model_ref
from mlrs_server.live.run_groups import LiveRun
from mlrs_server.storage import StoredRun
from mlrs_server.tenancy import bare


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run as callers see it."""

    run_id: str
    config: RunConfig
    model_ref: str
    """`name@digest`; "" where the config has a schedule."""
    snapshot: RunSnapshot
    durable_step: int
    create_time: float
    update_time: float
    meta: MetaCounters | None = None
    """The counters of its meta updates. `None` without meta mode, and for a run that is not in memory and was
    created before `NewRun.counters_at` was stored."""
    last_update: MetaUpdate | None = None
    """Its newest meta update, if it was read."""
    world_size: int = 0
    """The number of its ranks; 0 without `config.ranks`."""
    task: str = ""
    """The name of the task, as the tenant gave it."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """What people have noted of it, by name."""
    note: str = ""
    """A note for people."""


def view_of(stored: StoredRun, live: LiveRun | None) -> RunView:
    """Return a run as it is now: its snapshot is read from memory if the run is there."""
    snapshot = live.group.snapshot(live.row) if live else stored.snapshot
    return RunView(
        run_id=stored.run_id,
        config=stored.config,
        model_ref=model_ref(stored),
        snapshot=snapshot,
        durable_step=int(live.record["durable_step"]) if live else snapshot.next_step - 1,
        create_time=stored.create_time,
        update_time=stored.update_time,
        meta=_counters(stored, snapshot, live),
        world_size=stored.world_size,
        task=stored.task or bare(stored.run_id),
        tags=stored.tags,
        note=stored.note,
    )


def _counters(stored: StoredRun, snapshot: RunSnapshot, live: LiveRun | None) -> MetaCounters | None:
    """Return the counters of a run's meta updates, read without its model."""
    if stored.config.meta is None:
        return None
    start = adaptive(live.group.policy).counters_at if live else stored.counters_at
    return counters_of(snapshot.state, start) if start else None
