"""From a spec to its `Policy`: the LR is the base LR, times the warmup, times what the kind says."""

from __future__ import annotations

from typing import final

import numpy as np

from mlrs_core.config import ScheduleSpec
from mlrs_core.policy import Floats, Networks, Policy, Rows, RunTable, Signals, States, Steps, columns_of
from mlrs_core.schedules.base import base_lrs, warmup_ramp
from mlrs_core.schedules.formulas import FORMULAS
from mlrs_core.schedules.metric import MetricKernel


@final
class StepKernel:
    """`Policy` of a schedule that is a function of the step. Its state is empty."""

    def __init__(self, spec: ScheduleSpec) -> None:
        """Serve the shape of a spec; `base_lr` and `warmup` come from the runs."""
        self._spec = spec.resolved()
        self._formula = FORMULAS[spec.kind]

    @property
    def state_size(self) -> int:
        """The length of a run's state: 0."""
        return 0

    @property
    def network_size(self) -> int:
        """The length of a run's own network: 0, it has none."""
        return 0

    def init_state(self, n: int) -> States:
        """Return the states of n runs before their first step, (n, 0) float32."""
        return np.zeros((n, 0), np.float32)

    def background(self) -> StepKernel:
        """Return itself: what it computes is Python's, which lets other threads go on."""
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
        """Advance runs by a step for each entry; see `Policy.advance`. No loss matters."""
        del states, networks, signals
        runs = columns_of(table[rows])
        multiplier = warmup_ramp(steps, runs.warmup) * self._formula(self._spec, steps, runs)
        np.copyto(lrs, base_lrs(runs) * multiplier, where=np.isfinite(losses))


def schedule_policy(spec: ScheduleSpec) -> Policy:
    """Return a schedule ready to serve, for runs of its shape whatever their `base_lr` and `warmup`."""
    return StepKernel(spec) if spec.kind in FORMULAS else MetricKernel(spec)
