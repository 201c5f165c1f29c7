"""The daemon's arithmetic without a daemon: models as shipped, and runs answered in process."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import mlrs_core
from mlrs_core.config import RunConfig
from mlrs_core.models.checkpoint import read_model
from mlrs_core.models.model import Model
from mlrs_core.policy import NO_SIGNALS, Floats, Policy, Rows, RunTable, Steps, no_networks, table_of
from mlrs_server.domain.observations import Entries
from mlrs_server.domain.run_snapshot import first_snapshot
from mlrs_server.live.arrays import RunGroup
from mlrs_server.live.engine import SLICE
from performance.shared.messages import COLUMNS, losses_of

DRIFT, PAPER = "mlr-snet", "paper"
"""The models that are shipped: the default, of the architecture `drift`, and the paper's."""
STORED_EVERY = 100
"""Steps after which what was answered is taken away, as the daemon's store does."""


def shipped_model(name: str) -> Model:
    """Return a model that comes with mlrs."""
    model, _ = read_model(Path(mlrs_core.__file__).parent / "models" / f"{name}.safetensors")
    return model


class Kernel:
    """Runs advanced by a policy, and nothing around it."""

    def __init__(self, policy: Policy, runs: int, horizon: int) -> None:
        """Begin so many runs."""
        self._policy = policy
        self._states = policy.init_state(runs)
        self._networks = no_networks(policy, runs)
        self._table: RunTable = table_of([_config(horizon)] * runs)
        self._rows: Rows = np.arange(runs)
        self._steps: Steps = np.zeros(runs, np.int64)
        self._losses, self._lrs = losses_of(runs), np.empty(runs)

    def step(self, step: int) -> None:
        """Advance every run by a step."""
        self._steps[:] = step
        losses: Floats = self._losses[step % COLUMNS]
        self._policy.advance(
            self._states,
            self._networks,
            self._table,
            self._rows,
            self._steps,
            losses,
            NO_SIGNALS,
            self._lrs,
        )


class Answers:
    """Runs answered as the daemon answers: exactly once, in slices, logged for the store."""

    def __init__(self, policy: Policy, runs: int, horizon: int) -> None:
        """Begin so many runs."""
        self._group = RunGroup(0, "", policy)
        rows = [self._group.reserve() for _ in range(runs)]
        for row in rows:
            self._group.put(row, str(row), row, _config(horizon), first_snapshot(policy))
        self._handles = self._group.records["handle"][rows]
        self._steps: Steps = np.zeros(runs, np.int64)
        self._losses = losses_of(runs)

    def step(self, step: int) -> None:
        """Answer a step of every run."""
        self._steps[:] = step
        entries = Entries.of(self._handles, self._steps, self._losses[step % COLUMNS])
        for start in range(0, len(entries), SLICE):
            self._group.answer(Entries(entries.table[start : start + SLICE]))
        if step % STORED_EVERY == STORED_EVERY - 1:
            self._group.log.take()
        assert entries.reasons.all()


def _config(horizon: int) -> RunConfig:
    return RunConfig(horizon=horizon, num_classes=10)
