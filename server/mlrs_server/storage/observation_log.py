"""The stored record of runs: read, recalled for many runs at once, cut, and merged into larger chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from mlrs_core.policy import Steps
from mlrs_server.domain.extras import NO_EXTRAS, SparseExtras
from mlrs_server.storage.chunks import (
    CHUNK,
    NO_RECORD,
    pack_chunk,
    unpack_chunk,
    unpack_consecutive,
    unpack_steps,
)
from mlrs_server.storage.protocol import Observations
from mlrs_server.storage.tables import observations, runs

STRETCHES = 500
"""Stretches that a statement of `recall` lists."""
_chunk = observations.c
_BEFORE = observations.alias("before")
_OF_RUN = sa.select(runs.c.run_id, _chunk.first_step, _chunk.steps, _chunk.record).join_from(
    observations, runs, runs.c.key == _chunk.run_key
)
_READ = _OF_RUN.where(
    _chunk.run_key == sa.bindparam("key"),
    # The chunks before the one that `start` may be in are not looked at, since a run may have many.
    _chunk.first_step
    >= sa.func.coalesce(
        sa.select(sa.func.max(_BEFORE.c.first_step))
        .where(_BEFORE.c.run_key == sa.bindparam("key"), _BEFORE.c.first_step <= sa.bindparam("start"))
        .scalar_subquery(),
        0,
    ),
    _chunk.first_step < sa.bindparam("end"),
    _chunk.first_step + _chunk.steps > sa.bindparam("start"),
).order_by(_chunk.first_step)
"""The chunks of a run that begin before `end` and end after `start`."""
_READ_SOME = _READ.limit(sa.bindparam("most", type_=sa.Integer))
_OF_STEPS = """WITH wanted (step) AS (VALUES {steps})
SELECT chunk.first_step, chunk.record FROM observations AS chunk
WHERE chunk.run_key = {key} AND chunk.first_step IN (
    SELECT (SELECT max(first_step) FROM observations WHERE run_key = {key} AND first_step <= wanted.step)
    FROM wanted)
ORDER BY chunk.first_step"""
"""The chunks that some steps are in."""
_OF_STRETCHES = """WITH wanted (stretch, run_key, first_step, last_step) AS (VALUES {stretches})
SELECT wanted.stretch, chunk.first_step, chunk.record
FROM wanted JOIN observations AS chunk ON chunk.run_key = wanted.run_key
WHERE chunk.first_step <= wanted.last_step AND chunk.first_step >= COALESCE((
    SELECT max(first_step) FROM observations
    WHERE run_key = wanted.run_key AND first_step <= wanted.first_step), 0)
ORDER BY wanted.stretch, chunk.first_step"""
"""The chunks of some stretches. These are written out, as a statement may have fewer parameters than that."""


def read(
    connection: sa.Connection, key: int, first_step: int, limit: int, most_chunks: int | None = None
) -> Observations:
    """Return a run's record from a step on, at most `limit` steps; or at most so many chunks to their ends.

    Raises:
        AdvisorError: a chunk is damaged, or one is missing.
    """
    part = {"key": key, "start": first_step, "end": first_step + limit, "most": most_chunks}
    rows = connection.execute(_READ if most_chunks is None else _READ_SOME, part).all()
    if not rows:
        return NO_RECORD
    begins = min(first_step, rows[0].first_step)
    whole = unpack_consecutive(((row.first_step, row.record) for row in rows), begins, rows[0].run_id)
    return whole.cut(first_step - begins, limit if most_chunks is None else len(whole))


def recall(connection: sa.Connection, keys: npt.NDArray[np.int64], steps: Steps) -> Observations:
    """Return what was answered for steps of runs, (n,) each; the reason is 0 where that is not there.

    A chunk that is damaged counts as not there. A sweep asks for thousands at once.
    """
    order = np.lexsort((steps, keys))
    keys, steps = keys[order], steps[order]
    # A stretch is of steps that one chunk might hold, so that none is read over and over.
    begins = np.ones(len(steps), np.bool_)
    begins[1:] = (np.diff(keys) != 0) | (np.diff(steps) > CHUNK)
    bounds = np.append(np.flatnonzero(begins), len(steps))
    stretches = np.cumsum(begins) - 1
    result = Observations(np.empty(len(steps)), np.empty(len(steps)), np.empty(len(steps), np.uint8))
    extras = [NO_EXTRAS]
    for stretch in range(0, len(bounds) - 1, STRETCHES):
        ends = bounds[stretch : stretch + STRETCHES + 1]
        some = slice(ends[0], ends[-1])
        listed = zip(
            range(stretch, stretch + STRETCHES),
            keys[ends[:-1]].tolist(),
            steps[ends[:-1]].tolist(),
            steps[ends[1:] - 1].tolist(),
            strict=False,
        )
        query = _OF_STRETCHES.format(stretches=", ".join(map(str, listed)))
        chunks = [(*row,) for row in connection.exec_driver_sql(query)]
        part = unpack_steps(chunks, stretches[some], steps[some])
        result.losses[order[some]], result.lrs[order[some]] = part.losses, part.lrs
        result.reasons[order[some]] = part.reasons
        extras.append(SparseExtras(order[some][part.extras.positions], part.extras.values))
    positions, values = [part.positions for part in extras], [part.values for part in extras]
    return replace(result, extras=SparseExtras.sorted(np.concatenate(positions), np.concatenate(values)))


def pick(connection: sa.Connection, key: int, steps: Steps) -> Observations:
    """Return what is recorded of a few steps of a run, (n,), ascending; the reason is 0 where nothing is.

    Each chunk that one of them is in is read once, and no other. A chunk that is damaged counts as not there.
    """
    listed = ", ".join(f"({step})" for step in steps.tolist())
    rows = connection.exec_driver_sql(_OF_STEPS.format(key=int(key), steps=listed)) if listed else ()
    return unpack_steps([(0, *row) for row in rows], np.zeros(len(steps), np.int64), steps)


def cut(connection: sa.Connection, key: int, step: int) -> None:
    """Drop a run's record from a step on.

    Raises:
        AdvisorError: the chunk that the step is in is damaged.
    """
    connection.execute(observations.delete().where(_chunk.run_key == key, _chunk.first_step >= step))
    part = {"key": key, "start": step, "end": step}
    row = connection.execute(_READ, part).one_or_none()
    if row is not None:
        kept = unpack_chunk(row.record, row.run_id).cut(0, step - row.first_step)
        values = {"steps": len(kept), "record": pack_chunk(kept)}
        this = sa.and_(_chunk.run_key == key, _chunk.first_step == row.first_step)
        connection.execute(observations.update().where(this).values(values))


def merge(connection: sa.Connection, key: int, run_id: str, first_step: int) -> int | None:
    """Make one chunk of those from a step on, of `CHUNK` at most; return where the next begins.

    A flush leaves a row a run, and a run of days a million.

    Raises:
        AdvisorError: a chunk is damaged, or one is missing.
    """
    sizes = connection.execute(
        sa.select(_chunk.first_step, _chunk.steps)
        .where(_chunk.run_key == key, _chunk.first_step >= first_step)
        .order_by(_chunk.first_step)
        .limit(CHUNK + 1)
    ).all()
    count = _fitting([row.steps for row in sizes])
    if count > 1:
        first, last = sizes[0].first_step, sizes[count - 1].first_step
        these = sa.and_(_chunk.run_key == key, _chunk.first_step.between(first, last))
        rows = connection.execute(
            sa.select(_chunk.first_step, _chunk.record).where(these).order_by(_chunk.first_step)
        )
        whole = unpack_consecutive(((row.first_step, row.record) for row in rows), first, run_id)
        connection.execute(observations.delete().where(these))
        merged = {"run_key": key, "first_step": first, "steps": len(whole), "record": pack_chunk(whole)}
        connection.execute(observations.insert().values(merged))
    if count < len(sizes):
        return int(sizes[count].first_step)
    connection.execute(runs.update().where(runs.c.key == key).values(loose_chunks=0))
    return None


def _fitting(sizes: Sequence[int]) -> int:
    """Return how many of the first chunks fit into one; at least the first, whatever its size."""
    return max(1, sum(end <= CHUNK for end in accumulate(sizes)))
