"""Runs and records to put into a store."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlrs_core.config import Optimizer, RunConfig
from mlrs_server.domain.extras import WIDTH, SparseExtras
from mlrs_server.domain.ledger import RECORD, RunStatus
from mlrs_server.domain.observations import ANSWERED
from mlrs_server.domain.run_snapshot import RunSnapshot
from mlrs_server.domain.shards import shard_of
from mlrs_server.storage import NewRun, Observations, RunUpdates, SqlStore, Store, StoredRun

CONFIG = RunConfig(horizon=100, scale=0.5, optimizer=Optimizer.ADAM)
"""What runs have unless told otherwise."""
Opener = Callable[[Path], SqlStore]
"""Opens the store of a path of a test's own."""


def snapshot_at(step: int, *, status: RunStatus = RunStatus.ACTIVE) -> RunSnapshot:
    """Return a snapshot before a step."""
    return RunSnapshot(
        status=status,
        next_step=step,
        last_loss=float(step) if step else math.nan,
        last_lr=step / 10 if step else math.nan,
        last_reason=min(step, 1),
        bad_losses=0,
        state=np.full(5, step, np.float32),
    )


def new_run(run_id: str, config: RunConfig = CONFIG, *, snapshot: RunSnapshot | None = None) -> NewRun:
    """Return a run to create."""
    return NewRun(
        run_id=run_id,
        shard=shard_of(run_id),
        config=config,
        model_name="m",
        model_digest="d" * 64,
        snapshot=snapshot or snapshot_at(0),
    )


def create(store: Store, run_id: str, config: RunConfig = CONFIG) -> StoredRun:
    """Store a new run."""
    (run,) = store.create([new_run(run_id, config)])
    return run


def stretch(start: int, end: int) -> Observations:
    """Return the record of some steps. Steps 3, 7, 11 and so on came with extras."""
    steps = np.arange(start, end, dtype=np.float64)
    with_extras = np.flatnonzero(steps % 4 == 3)
    values = steps[with_extras, None] + np.arange(WIDTH)
    values[:, 1] = np.nan
    return Observations(
        steps + 0.5, steps / 7, np.ones(end - start, np.uint8), extras=SparseExtras(with_extras, values)
    )


def update(run: StoredRun, start: int, end: int) -> RunUpdates:
    """Return the observations of some steps, for appending."""
    return updates([(run, start, stretch(start, end), snapshot_at(end))])


def updates(runs: Sequence[tuple[StoredRun, int, Observations, RunSnapshot]]) -> RunUpdates:
    """Return, for appending, observations of runs: of each, its first step, record, and snapshot."""
    records, tables = np.zeros(len(runs), RECORD), []
    for record, (run, first_step, observations, snapshot) in zip(records, runs, strict=True):
        record["key"], record["shard"] = run.key, run.shard
        for name in ("status", "next_step", "last_loss", "last_lr", "last_reason", "bad_losses"):
            record[name] = getattr(snapshot, name)
        table = np.zeros(len(observations), ANSWERED)
        table["step"] = first_step + np.arange(len(observations))
        table["loss"], table["lr"] = observations.losses, observations.lrs
        table["reason"] = observations.reasons
        tables.append(table)
    bounds = np.cumsum([0, *map(len, tables)])
    states = np.array([snapshot.state for _, _, _, snapshot in runs])
    some = [observations.extras for _, _, observations, _ in runs]
    positions = [start + extras.positions for start, extras in zip(bounds.tolist(), some, strict=False)]
    extras = SparseExtras(np.concatenate(positions), np.concatenate([extras.values for extras in some]))
    return RunUpdates(np.concatenate(tables), bounds, records, states, extras=extras)


def fill(store: Store, run: StoredRun, *ends: int) -> None:
    """Append chunks that end at these steps."""
    for start, end in zip((0, *ends), ends, strict=False):
        store.append([update(run, start, end)])


def got(store: Store, run_id: str) -> StoredRun:
    """Return a run that exists."""
    return store.get([run_id])[run_id]


def same(left: Observations, right: Observations) -> bool:
    """Return whether two stretches have the same bits."""
    return all(
        one.tobytes() == other.tobytes() for one, other in zip(*map(arrays_of, (left, right)), strict=True)
    )


def arrays_of(record: Observations) -> list[np.ndarray]:
    """Return the arrays of a stretch."""
    return [record.losses, record.lrs, record.reasons, record.extras.positions, record.extras.values]


def facts(run: StoredRun) -> dict[str, Any]:
    """Return a run in comparable parts: NaNs and arrays as bytes."""
    moving = {name: np.asarray(value).tobytes() for name, value in vars(run.snapshot).items()}
    return {**vars(run), "snapshot": moving}
