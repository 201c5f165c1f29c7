"""What was answered for steps of many runs, read together: a sweep that asks again asks for thousands."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from mlrs_core.policy import Steps
from mlrs_server.store.merging import CHUNK
from mlrs_server.store.packing import unpack_steps
from mlrs_server.store.protocol import Observations

AT_ONCE = 500
"""Stretches of a statement."""
_CHUNKS = """WITH wanted (place, run_key, first_step, last_step) AS (VALUES {stretches})
SELECT wanted.place, chunk.first_step, chunk.record
FROM wanted JOIN observations AS chunk ON chunk.run_key = wanted.run_key
WHERE chunk.first_step <= wanted.last_step AND chunk.first_step >= COALESCE((
    SELECT max(first_step) FROM observations
    WHERE run_key = wanted.run_key AND first_step <= wanted.first_step), 0)
ORDER BY wanted.place, chunk.first_step"""
"""The chunks of some stretches. These are written out, as a statement may have fewer parameters than that."""


def recalled(connection: sa.Connection, keys: npt.NDArray[np.int64], steps: Steps) -> Observations:
    """Return what was answered for steps of runs, (n,) each; the reason is 0 where that is not there.

    A chunk that is damaged counts as not there.
    """
    order = np.lexsort((steps, keys))
    keys, steps = keys[order], steps[order]
    # A stretch is of steps that one chunk might hold, so that none is read over and over.
    begins = np.ones(len(steps), np.bool_)
    begins[1:] = (np.diff(keys) != 0) | (np.diff(steps) > CHUNK)
    bounds = np.append(np.flatnonzero(begins), len(steps))
    places = np.cumsum(begins) - 1
    result = Observations(np.empty(len(steps)), np.empty(len(steps)), np.empty(len(steps), np.uint8))
    for place in range(0, len(bounds) - 1, AT_ONCE):
        ends = bounds[place : place + AT_ONCE + 1]
        some = slice(ends[0], ends[-1])
        stretches = zip(
            range(place, place + AT_ONCE),
            keys[ends[:-1]].tolist(),
            steps[ends[:-1]].tolist(),
            steps[ends[1:] - 1].tolist(),
            strict=False,
        )
        listed = ", ".join(map(str, stretches))
        chunks = connection.exec_driver_sql(_CHUNKS.format(stretches=listed)).all()
        part = unpack_steps([(*chunk,) for chunk in chunks], places[some], steps[some])
        result.losses[order[some]], result.lrs[order[some]] = part.losses, part.lrs
        result.reasons[order[some]] = part.reasons
    return result
