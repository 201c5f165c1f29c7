"""Runs in memory, as a daemon holds them: for tests of advice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlrs_core.advise import advise
from mlrs_core.config import RunConfig
from mlrs_core.policy import Floats, Policy, Rows, no_networks, table_of


class Runs:
    """The runs of one policy: their table, states and last learning rates."""

    def __init__(self, policy: Policy, configs: Sequence[RunConfig]) -> None:
        """Open a run for each config."""
        self.policy = policy
        self.table = table_of(configs)
        self.states = policy.init_state(len(configs))
        self.networks = no_networks(policy, len(configs))
        self.last = np.full(len(configs), np.nan)

    def advise(self, step: int, losses: Sequence[float] | Floats, rows: Rows | None = None) -> Floats:
        """Return the learning rates of some runs, all of them unless given, at one step of theirs."""
        rows = np.arange(len(self.table)) if rows is None else rows
        steps = np.full(len(rows), step)
        observed = np.asarray(losses, np.float64)
        return advise(self.policy, self.states, self.networks, self.table, rows, steps, observed, self.last)
