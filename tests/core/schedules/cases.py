"""Schedules to test, and a loop that follows one."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from mlrs_core.advise import step as step_of
from mlrs_core.config import RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.policy import Floats, RunColumns
from mlrs_core.schedules.formulas import FORMULAS
from mlrs_core.schedules.kernel import schedule_policy

LOSS_FREE = sorted(FORMULAS)
"""The kinds that are a function of the step."""
METRIC = sorted(set(ScheduleKind) - set(FORMULAS))
"""The kinds that watch the loss."""

_SHAPES: dict[str, st.SearchStrategy[Any]] = {
    "final_lr": st.floats(0, 1),
    "milestones": st.lists(st.integers(1, 200), min_size=1, max_size=5, unique=True).map(
        lambda steps: tuple(sorted(steps))
    ),
    "factor": st.floats(0.01, 0.9999),
    "cooldown_fraction": st.floats(0.01, 1),
    "period": st.integers(1, 60),
    "period_mult": st.integers(1, 4),
    "peak_fraction": st.floats(0.01, 1),
    "start_division": st.floats(1, 100),
    "final_division": st.floats(1, 1e6),
    "patience": st.integers(0, 20),
    "threshold": st.floats(0, 0.1),
    "cooldown": st.integers(0, 20),
    "smoothing": st.integers(1, 50),
}


@st.composite
def configs(draw: st.DrawFn, *kinds: ScheduleKind) -> RunConfig:
    """Draw a config with a schedule of one of some kinds, whole: with a horizon beyond its warmup."""
    kind = draw(st.sampled_from(kinds))
    bare = ScheduleSpec(kind)
    known = [name for name in _SHAPES if takes(kind, name)]
    shape = {
        name: draw(_SHAPES[name]) for name in draw(st.sets(st.sampled_from(known)) if known else st.just([]))
    }
    horizon = draw(st.integers(1, 150))
    spec = ScheduleSpec(
        bare.kind,
        base_lr=draw(st.none() | st.floats(1e-6, 10)),
        warmup=draw(st.integers(0, horizon - 1)),
        **shape,
    )
    return RunConfig(horizon=horizon, schedule=spec)


def takes(kind: ScheduleKind, name: str) -> bool:
    """Return whether a parameter belongs to a kind."""
    return getattr(ScheduleSpec(kind).resolved(), name) is not None or name in {
        ScheduleKind.MULTI_STEP: {"milestones"},
        ScheduleKind.EXPONENTIAL: {"factor"},
        ScheduleKind.SGDR: {"period"},
        ScheduleKind.PLATEAU: {"patience", "smoothing"},
    }.get(kind, set())


def follow(config: RunConfig, losses: Floats) -> Floats:
    """Return the LRs of a run alone, a step a loss."""
    assert config.schedule is not None
    policy, runs = schedule_policy(config.schedule), RunColumns.of([config])
    state, lrs = policy.init_state(1), np.empty(len(losses))
    for step, loss in enumerate(losses):
        lr, state = step_of(policy, state, np.array([step]), np.array([loss]), runs)
        lrs[step] = lr[0]
    return lrs


def lrs_of(kind: ScheduleKind, steps: int, *, horizon: int | None = None, **numbers: Any) -> Floats:
    """Return the LRs of a schedule over some steps, of a run whose loss stays at 2."""
    config = RunConfig(horizon=horizon, schedule=ScheduleSpec(kind, **numbers))
    return follow(config, np.full(steps, 2.0))
