"""Stretches of a run's record, put together and cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlrs_server.errors import DamagedError
from mlrs_server.store.protocol import Observations

NO_RECORD = Observations(np.empty(0), np.empty(0), np.empty(0, np.uint8))
"""A stretch of no steps."""


def joined(parts: Sequence[Observations]) -> Observations:
    """Return stretches, at least one, as one."""
    return Observations(
        np.concatenate([part.losses for part in parts]),
        np.concatenate([part.lrs for part in parts]),
        np.concatenate([part.reasons for part in parts]),
    )


def cut(whole: Observations, start: int, count: int) -> Observations:
    """Return so many steps of a stretch, from one on; fewer where it ends."""
    part = slice(start, start + count)
    return Observations(whole.losses[part], whole.lrs[part], whole.reasons[part])


def breaks_off(run_id: str, step: int) -> DamagedError:
    """Return the error of a record with a gap at a step."""
    return DamagedError(
        f"the store's record of run {run_id!r} breaks off at step {step}; restore it from a backup"
    )
