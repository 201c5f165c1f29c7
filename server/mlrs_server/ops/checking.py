"""Checks of a whole store for damage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from mlrs_core.adapting import AdaptivePolicy
from mlrs_server.domain.run_snapshot import RunSnapshot
from mlrs_server.domain.updates import MetaUpdate
from mlrs_server.errors import AdvisorError, DamagedError
from mlrs_server.live.policies import adaptive_policy_of, policy_of
from mlrs_server.live.replay import PAGE, PAGE_CHUNKS, Replay, replayed_from, stored_network
from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.storage import Observations, SqlStore, StoredRun
from mlrs_server.storage.codec import check_network
from mlrs_server.storage.notes import are_damaged
from mlrs_server.storage.tables import (
    meta_updates,
    networks,
    observations,
    run_events,
    run_of,
    run_tags,
    runs,
    searches,
)

OF_RUNS = {
    observations: "chunks of observations",
    meta_updates: "meta updates",
    networks: "networks",
    searches: "searches",
    run_events: "events",
    run_tags: "tags",
}
"""The tables whose rows belong to runs, and what messages call the rows."""
MADE_AGAIN = (
    "its stored network is damaged; nothing is lost: the daemon computes it again from the run's record when "
    "it opens the run, and stores a valid one once the run continues"
)
PERHAPS = ", provided that the record gives it, which --replay checks"
"""Added where the record was read but not replayed."""
SEARCH_DAMAGED = (
    "the record of its search is damaged; its learning rates do not depend on it, but the search can neither "
    "be read nor continued"
)
NOTES_DAMAGED = (
    "its note or one of its tags is damaged; its learning rates do not depend on them. Set it again with "
    "`mlrs runs note` or `mlrs runs tag`"
)
BOTH = "its stored network is damaged, too, so it cannot continue: restore a backup, or delete the run"


@dataclass(frozen=True)
class Checked:
    """The result of the check of a run."""

    run_id: str
    steps: int
    """The number of steps of its record that were read."""
    problem: str
    """A description of the damage; "" if there is none."""


def count_runs(store: SqlStore) -> int:
    """Return the number of runs."""
    with store.reading() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(runs)).scalar_one())


def check_whole(store: SqlStore) -> list[str]:
    """Return descriptions of the damage of a store that is not of a single run."""
    found = [f"the database's own check says: {problem}" for problem in (store.inspect(),) if problem]
    for table, things in OF_RUNS.items():
        lost = (
            sa.select(sa.func.count())
            .select_from(table.outerjoin(runs, runs.c.key == table.c.run_key))
            .where(runs.c.key.is_(None))
        )
        with store.reading() as connection:
            count = int(connection.execute(lost).scalar_one())
        found += [f"{count} {things} are of no run"] if count else []
    return found


def check_runs(store: SqlStore, catalog: ModelCatalog | None) -> Iterator[Checked]:
    """Read and check every run; yield the results.

    Args:
        store: a store that no process writes meanwhile.
        catalog: if given, each run is replayed with its model, and must give the same bits.
    """
    with store.reading() as connection:
        names = connection.execute(sa.select(runs.c.key, runs.c.run_id).order_by(runs.c.run_id)).all()
    for key, run_id in names:
        yield _checked(store, key, run_id, catalog)


def _checked(store: SqlStore, key: int, run_id: str, catalog: ModelCatalog | None) -> Checked:
    try:
        with store.reading() as connection:
            run = run_of(connection.execute(sa.select(runs).where(runs.c.key == key)).one())
        replay = Replay(policy_of(run, catalog), run.config) if catalog else None
    except AdvisorError as error:
        return Checked(run_id, 0, str(error))
    steps, problem = _check_record(store, run, replay)
    if run.config.meta is not None:
        problem = _with_network(store, run, catalog, replay, problem)
    return Checked(run_id, steps, problem or _check_search(store, run) or _check_notes(store, run))


def _check_record(store: SqlStore, run: StoredRun, replay: Replay | None) -> tuple[int, str]:
    """Read a run's record, and replay it if `replay` is given; return its number of steps, and its damage."""
    steps, last, differs = 0, None, None
    try:
        while len(record := store.read(run.key, steps, PAGE, most_chunks=PAGE_CHUNKS)):
            updates = store.read_updates(run.key, steps, len(record))
            if replay is not None and differs is None:
                differs = _first_difference(replay.feed(record.losses, updates, record.extras), record, steps)
            steps += len(record)
            last = record
        problem = _against(run.snapshot, steps, last, store.last_updates([run.key]).get(run.key))
    except AdvisorError as error:
        return steps, str(error)
    if differs is not None:
        problem = problem or f"its learning rate at step {differs} is not what its losses give here"
    elif replay is not None and not problem:
        problem = _against_replay(run, replay.snapshot())
    return steps, problem


def _check_search(store: SqlStore, run: StoredRun) -> str:
    """Read a run's newest search; return a description of its damage, or ""."""
    try:
        store.search(run.key)
    except DamagedError:
        return SEARCH_DAMAGED
    except AdvisorError as error:
        return str(error)
    return ""


def _check_notes(store: SqlStore, run: StoredRun) -> str:
    """Read a run's note and tags; return a description of their damage, or ""."""
    with store.reading() as connection:
        return NOTES_DAMAGED if are_damaged(connection, run.key) else ""


def _with_network(
    store: SqlStore, run: StoredRun, catalog: ModelCatalog | None, replay: Replay | None, problem: str
) -> str:
    """Check the stored network of a run in meta mode; return its damage besides `problem`, the record's."""
    try:
        if catalog and replay and not problem:
            return _against_network(store, run, adaptive_policy_of(run, catalog), replay)
        _check_network(store, run)
    except DamagedError:
        perhaps = "" if catalog else PERHAPS
        return f"{problem}; {BOTH}" if problem else f"{MADE_AGAIN}{perhaps}"
    except AdvisorError as error:
        return problem or str(error)
    return problem


def _check_network(store: SqlStore, run: StoredRun) -> None:
    """Check a run's stored network as far as possible without its model."""
    stored = store.network(run.key)
    if stored is None:
        return
    check_network(stored.data, run.run_id)
    if len(stored.snapshot.state) != len(run.snapshot.state):
        raise DamagedError(f"the state beside the stored network of run {run.run_id!r} is not of its size")


def _against_network(store: SqlStore, run: StoredRun, policy: AdaptivePolicy, replay: Replay) -> str:
    """Return how the network that a recovery would start from contradicts the whole record."""
    _check_network(store, run)
    checkpoint = stored_network(store, run, policy, run.snapshot.next_step)
    again, same = replayed_from(store, run, policy, checkpoint, None)
    if not same or again.network.tobytes() != replay.network().tobytes():
        return "its stored network is not what its record gives here"
    return ""


def _first_difference(lrs: np.ndarray, record: Observations, first: int) -> int | None:
    """Return the first step at which learning rates differ from the record in any bit."""
    differ = np.flatnonzero(lrs.view(np.uint64) != record.lrs.view(np.uint64))
    return first + int(differ[0]) if len(differ) else None


def _against(snapshot: RunSnapshot, steps: int, last: Observations | None, update: MetaUpdate | None) -> str:
    """Return how a snapshot contradicts its record of `steps` steps, whose last chunk is `last`."""
    if steps != snapshot.next_step:
        return f"its record has {steps} steps, and its snapshot is of step {snapshot.next_step}"
    if last is None:
        return ""
    adapted = update is not None and update.step == steps - 1  # which may have changed the learning rate
    lr = snapshot.last_lr if adapted else last.lrs[-1]
    ends = np.array([snapshot.last_loss, snapshot.last_lr]).tobytes()
    if ends != np.array([last.losses[-1], lr]).tobytes():
        return "its snapshot's last loss and learning rate are not those of its record"
    return ""


def _against_replay(run: StoredRun, replayed: RunSnapshot) -> str:
    if run.snapshot.state.tobytes() != replayed.state.tobytes():
        return "its state is not what its losses give here"
    return ""
