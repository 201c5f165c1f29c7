"""Many small chunks of a run's record made one: a flush leaves a row a run, a run of days a million."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import sqlalchemy as sa

from mlrs_server.store import codec
from mlrs_server.store.records import breaks_off, joined
from mlrs_server.store.tables import observations, runs

CHUNK = 8192
"""Steps of a merged chunk."""


def merge_chunks(connection: sa.Connection, key: int, run_id: str, first_step: int) -> int | None:
    """Make one chunk of those from a step on, of so many steps; return where the next begins, if any does.

    Args:
        connection: in a transaction that may write.
        key: of the run.
        run_id: its id, for messages.
        first_step: where a chunk begins.

    Raises:
        AdvisorError: a record is damaged, or one is missing.
    """
    chunk = observations.c
    sizes = connection.execute(
        sa.select(chunk.first_step, chunk.steps)
        .where(chunk.run_key == key, chunk.first_step >= first_step)
        .order_by(chunk.first_step)
        .limit(CHUNK + 1)
    ).all()
    count = _how_many([row.steps for row in sizes])
    if count > 1:
        first, last = sizes[0].first_step, sizes[count - 1].first_step
        _merge(connection, key, run_id, first, last)
    if count < len(sizes):
        return int(sizes[count].first_step)
    connection.execute(runs.update().where(runs.c.key == key).values(loose_chunks=0))
    return None


def _how_many(sizes: Sequence[int]) -> int:
    """Return how many of the first chunks fit into one; at least the first, whatever its size."""
    return max(1, sum(end <= CHUNK for end in accumulate(sizes)))


def _merge(connection: sa.Connection, key: int, run_id: str, first: int, last: int) -> None:
    chunk = observations.c
    these = sa.and_(chunk.run_key == key, chunk.first_step >= first, chunk.first_step <= last)
    rows = connection.execute(
        sa.select(chunk.first_step, chunk.record).where(these).order_by(chunk.first_step)
    )
    parts, step = [], first
    for row in rows:
        if row.first_step != step:
            raise breaks_off(run_id, step)
        parts.append(codec.unpack_observations(row.record, run_id))
        step += len(parts[-1])
    whole = joined(parts)
    connection.execute(observations.delete().where(these))
    connection.execute(
        observations.insert().values(
            run_key=key, first_step=first, steps=len(whole), record=codec.pack_observations(whole)
        )
    )
