"""A policy whose advice depends on all that comes with observations, now and later, for tests."""

from __future__ import annotations

import math
from typing import Self

import numpy as np
import pytest

from mlrs_core.config import RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.policy import COLUMNS, Floats, Networks, Rows, RunTable, Signals, States, Steps
from mlrs_server.domain.extras import LOSS, RESTORED, STEP, WIDTH, Extras, none_sent
from mlrs_server.live import policies

SENSING = RunConfig(horizon=1000, schedule=ScheduleSpec(ScheduleKind.CONSTANT, base_lr=1.0))
"""The config of a run that `Sensing` serves where `install` was called."""


class Sensing:
    """A policy whose state is a decaying sum of losses and of each column of signals."""

    state_size = 1 + len(COLUMNS)
    network_size = 0

    def init_state(self, n: int) -> States:
        """Return the states of n runs before their first step."""
        return np.zeros((n, self.state_size), np.float32)

    def background(self) -> Self:
        """Return the policy: it has no compiled code."""
        return self

    def advance(
        self,
        states: States,
        networks: Networks,
        table: RunTable,
        rows: Rows,
        steps: Steps,
        losses: Floats,
        signals: Signals,
        lrs: Floats,
    ) -> None:
        """Advance the runs."""
        del networks, table, steps
        assert signals.shape in {(0, len(COLUMNS)), (len(rows), len(COLUMNS))}
        assert signals.flags.c_contiguous
        for entry, row in enumerate(rows):
            if not math.isfinite(losses[entry]):
                continue
            read = np.nan_to_num(signals[entry]) if len(signals) else np.zeros(len(COLUMNS))
            states[row] = 0.9 * states[row] + np.append(losses[entry], read)
            lrs[entry] = 0.01 + abs(float(np.sin(states[row].astype(np.float64)).sum()))


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `Sensing` serve every run that follows a schedule."""
    monkeypatch.setattr(policies, "schedule_policy", lambda _spec: Sensing())


def extras_at(step: int) -> Extras:
    """Return what comes with the observation of a step, (WIDTH,).

    Signals come often, a validation loss and that a state was restored rarely. Steps 0, 3, 6 and so on come
    with nothing, or with a validation loss.
    """
    extras = none_sent(1)[0]
    if step % 3:
        extras[:LOSS] = np.cos(step + np.arange(LOSS))
        extras[step % LOSS] = (np.nan, np.inf, -0.0)[step % 3]
    if step % 7 == 5:
        extras[LOSS], extras[STEP] = (math.inf if step % 2 else 1.0 / step), step - 1
    if step % 6 == 4:
        extras[RESTORED] = 1.0
    return extras


def extras_of(start: int, end: int) -> Extras:
    """Return what comes with the observations of steps, (end - start, WIDTH)."""
    return np.array([extras_at(step) for step in range(start, end)]).reshape(-1, WIDTH)
