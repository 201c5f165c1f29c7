"""A store read from end to end, for what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from mlrs_server.adapting.updates import MetaUpdate
from mlrs_server.errors import AdvisorError
from mlrs_server.live import PAGE
from mlrs_server.models import ModelCatalog
from mlrs_server.policies import policy_of
from mlrs_server.replay import Replay
from mlrs_server.runs import RunSnapshot
from mlrs_server.store import Observations, SqlStore, StoredRun
from mlrs_server.store.tables import observations, run_of, runs


@dataclass(frozen=True)
class Checked:
    """A run that was looked at."""

    run_id: str
    steps: int
    """Of its record that were read."""
    problem: str
    """What is wrong with it; "" if nothing is."""


def count_runs(store: SqlStore) -> int:
    """Return how many runs there are."""
    with store.reading() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(runs)).scalar_one())


def check_whole(store: SqlStore) -> list[str]:
    """Return what is wrong with a store as a whole."""
    found = [f"the database's own check says: {problem}" for problem in (store.inspect(),) if problem]
    lost = (
        sa.select(sa.func.count())
        .select_from(observations.outerjoin(runs, runs.c.key == observations.c.run_key))
        .where(runs.c.key.is_(None))
    )
    with store.reading() as connection:
        count = int(connection.execute(lost).scalar_one())
    return [*found, *([f"{count} chunks of observations are of no run"] if count else [])]


def check_runs(store: SqlStore, catalog: ModelCatalog | None) -> Iterator[Checked]:
    """Read every run, check it, and yield what came of it.

    Args:
        store: that nobody writes meanwhile.
        catalog: where given, each run is replayed with its model, and must come out bit for bit.
    """
    with store.reading() as connection:
        names = connection.execute(sa.select(runs.c.key, runs.c.run_id).order_by(runs.c.run_id)).all()
    for key, run_id in names:
        yield _checked(store, key, run_id, catalog)


def _checked(store: SqlStore, key: int, run_id: str, catalog: ModelCatalog | None) -> Checked:
    steps = 0
    try:
        with store.reading() as connection:
            run = run_of(connection.execute(sa.select(runs).where(runs.c.key == key)).one())
        replay = Replay(policy_of(run, catalog), run.config) if catalog else None
        last, differs = None, None
        while len(record := store.read(key, steps, PAGE)):
            if replay is not None and differs is None:
                updates = store.read_updates(key, steps, len(record))
                differs = _first_difference(replay.feed(record.losses, updates), record, steps)
            steps += len(record)
            last = record
        problem = _against(run.snapshot, steps, last, store.last_update(key))
        if differs is not None:
            problem = problem or f"its learning rate at step {differs} is not what its losses give here"
        elif replay is not None and not problem:
            problem = _against_replay(run, replay.snapshot())
    except AdvisorError as error:
        problem = str(error)
    return Checked(run_id, steps, problem)


def _first_difference(lrs: np.ndarray, record: Observations, first: int) -> int | None:
    """Return the first step at which learning rates differ from a record, in any bit."""
    differ = np.flatnonzero(lrs.view(np.uint64) != record.lrs.view(np.uint64))
    return first + int(differ[0]) if len(differ) else None


def _against(snapshot: RunSnapshot, steps: int, last: Observations | None, update: MetaUpdate | None) -> str:
    """Return how a snapshot contradicts the record, of so many steps and with this end."""
    if steps != snapshot.next_step:
        return f"its record has {steps} steps, and its snapshot is of step {snapshot.next_step}"
    if last is None:
        return ""
    adapted = update is not None and update.step == steps - 1  # then its learning rate may be another
    lr = snapshot.last_lr if adapted else last.lrs[-1]
    ends = np.array([snapshot.last_loss, snapshot.last_lr]).tobytes()
    if ends != np.array([last.losses[-1], lr]).tobytes():
        return "its snapshot's last loss and learning rate are not those of its record"
    return ""


def _against_replay(run: StoredRun, replayed: RunSnapshot) -> str:
    if run.snapshot.state.tobytes() != replayed.state.tobytes():
        return "its state is not what its losses give here"
    return ""
