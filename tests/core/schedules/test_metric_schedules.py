"""The schedules that watch the loss: held against torch's plateau, and against a plain loop."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mlrs_core.advise import step as step_of
from mlrs_core.config import RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.policy import Floats, RunColumns
from mlrs_core.schedules.kernel import schedule_policy
from tests.core.schedules.cases import METRIC, configs, follow

LOSSES: Floats = 2 / (1 + 0.05 * np.arange(300)) + np.random.default_rng(3).normal(0, 0.05, 300)
"""A loss that falls, in noise."""


@pytest.mark.parametrize("patience", [0, 1, 10])
@pytest.mark.parametrize("cooldown", [0, 5])
@pytest.mark.parametrize("final_lr", [0.0, 0.02])
def test_plateau_is_that_of_torch(patience: int, cooldown: int, final_lr: float) -> None:
    """Without smoothing, the LRs are those of torch's scheduler, called at each step with its loss."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    numbers: dict[str, Any] = {"factor": 0.5, "patience": patience, "threshold": 0.01, "cooldown": cooldown}
    scheduler = ReduceLROnPlateau(optimizer, min_lr=0.5 * final_lr, eps=0.0, **numbers)
    expected = []
    for loss in LOSSES:
        scheduler.step(float(loss))
        expected.append(max(float(optimizer.param_groups[0]["lr"]), 0.5e-12))
    spec = ScheduleSpec(ScheduleKind.PLATEAU, base_lr=0.5, final_lr=final_lr, smoothing=1, **numbers)
    lrs = follow(RunConfig(schedule=spec), LOSSES)
    assert lrs == pytest.approx(expected, rel=1e-9)
    assert lrs[-1] < lrs[0]


def greedy_oracle(
    losses: Floats, *, base_lr: float, factor: float, patience: int, threshold: float
) -> Floats:
    """Return the LRs of GreedyLR without warmup, cooldown or averaging, as a loop over plain numbers."""
    best, good, bad, lr, lrs = math.inf, 0, 0, base_lr, []
    for loss in losses:
        if loss < best - threshold * abs(best) or best == math.inf:
            best, good, bad = loss, good + 1, 0
        else:
            good, bad = 0, bad + 1
        if bad > patience:
            lr, bad = lr * factor, 0
        if good > patience:
            lr, good = lr / factor, 0
        lrs.append(lr)
    return np.array(lrs)


def test_greedy_is_the_plain_loop() -> None:
    """The LR rises while the loss falls and falls while it stagnates, as in the obvious loop."""
    losses = np.concatenate([np.linspace(3, 1, 60), np.full(100, 1.0), np.linspace(1, 0.5, 40)])
    spec = ScheduleSpec(ScheduleKind.GREEDY, base_lr=0.1)
    lrs = follow(RunConfig(schedule=spec), losses)
    expected = greedy_oracle(losses, base_lr=0.1, factor=0.95, patience=10, threshold=1e-6)
    assert lrs == pytest.approx(expected, rel=1e-12)
    assert lrs[59] > 0.1 > lrs[159]


def test_greedy_stays_within_its_bounds_and_comes_back() -> None:
    """The LR stops at ten times the base, or at the run's `max_lr`, and leaves it at the first stagnation."""
    losses = np.concatenate([np.linspace(100, 1, 2000), np.full(30, 1.0)])
    spec = ScheduleSpec(ScheduleKind.GREEDY, base_lr=0.1, patience=0)
    for bound, max_lr in ((1.0, None), (0.3, 0.3)):
        lrs = follow(RunConfig(max_lr=max_lr, schedule=spec), losses)
        assert lrs.max() == pytest.approx(bound)
        assert lrs[1999] == lrs.max()
        assert lrs[2001] < bound


def test_greedy_leaves_its_lower_bound_at_once() -> None:
    """However long the LR was at `final_lr`, or at the run's `min_lr`, it rises at the first improvement."""
    losses = np.concatenate([np.full(3000, 1.0), [0.9, 0.8]])
    spec = ScheduleSpec(ScheduleKind.GREEDY, base_lr=0.1, patience=0, final_lr=0.01)
    for bound, min_lr in ((0.001, None), (0.05, 0.05)):
        lrs = follow(RunConfig(min_lr=min_lr, schedule=spec), losses)
        assert lrs[2999] == lrs.min() == pytest.approx(bound)
        assert lrs[3001] > bound


@pytest.mark.parametrize("kind", METRIC)
@pytest.mark.parametrize(("bounds", "start"), [({"max_lr": 0.001}, 0.001), ({"min_lr": 0.2}, 0.2)])
def test_a_base_beyond_the_bounds_starts_at_the_nearer(
    kind: ScheduleKind, bounds: dict[str, float], start: float
) -> None:
    """With the base LR outside [min_lr, max_lr], the LR is the bound; it moves inwards at the first move."""
    spec = ScheduleSpec(kind, base_lr=0.1, factor=0.5, patience=0, smoothing=1, final_lr=0.0)
    if "max_lr" in bounds:
        lrs = follow(RunConfig(**bounds, schedule=spec), np.full(4, 1.0))
        assert lrs == pytest.approx([start, start / 2, start / 4, start / 8])
    else:
        stagnating = follow(RunConfig(**bounds, schedule=spec), np.full(500, 1.0))
        assert stagnating[1:] == pytest.approx(np.full(499, start))  # the first loss is an improvement
        if kind is ScheduleKind.GREEDY:
            losses = np.concatenate([np.full(500, 1.0), [0.5, 0.4]])
            rising = follow(RunConfig(**bounds, schedule=spec), losses)
            assert rising[500:] == pytest.approx([2 * start, 4 * start])


def test_smoothing_sees_through_noise() -> None:
    """A loss that falls slowly under noise keeps its LR when it is averaged, and loses it when it is not."""
    rng = np.random.default_rng(0)
    losses = np.linspace(2, 1, 3000) + rng.normal(0, 0.3, 3000)
    numbers: dict[str, Any] = {"patience": 100, "factor": 0.5, "base_lr": 0.1}
    raw = follow(RunConfig(schedule=ScheduleSpec(ScheduleKind.PLATEAU, smoothing=1, **numbers)), losses)
    smooth = follow(RunConfig(schedule=ScheduleSpec(ScheduleKind.PLATEAU, smoothing=200, **numbers)), losses)
    assert smooth[-1] > 4 * raw[-1]


def test_plateau_waits_a_tenth_of_the_horizon() -> None:
    """A loss that stands still lowers the LR after a tenth of the horizon; unknown, after 1000 steps."""
    for horizon, steps in ((2000, 200), (None, 1000)):
        spec = ScheduleSpec(ScheduleKind.PLATEAU, base_lr=0.1)
        lrs = follow(RunConfig(horizon=horizon, schedule=spec), np.full(steps + 3, 1.0))
        assert int(np.argmax(lrs < 0.1)) == steps + 1
        assert lrs[-1] == pytest.approx(0.01)


def test_negative_losses_count_by_their_distance() -> None:
    """A negative loss improves downwards: one that stands still lowers the LR, one that falls does not."""
    spec = ScheduleSpec(ScheduleKind.PLATEAU, base_lr=0.1, smoothing=1, patience=5)
    still, falling = np.full(50, -3.0), -3.0 - np.arange(50)
    assert follow(RunConfig(schedule=spec), still)[-1] < 0.01
    assert follow(RunConfig(schedule=spec), falling)[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("kind", METRIC)
def test_warmup_moves_nothing(kind: ScheduleKind) -> None:
    """In the warmup the LR is the linear ramp, whatever the losses do."""
    spec = ScheduleSpec(kind, base_lr=0.1, warmup=40, patience=0)
    lrs = follow(RunConfig(schedule=spec), LOSSES[:40])
    assert lrs == pytest.approx(0.1 * np.arange(1, 41) / 41, rel=1e-12)


@given(configs(*METRIC), st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=60))
def test_any_losses_give_lrs_within_bounds(config: RunConfig, losses: list[float]) -> None:
    """Whatever the finite losses, LRs are finite, positive, and at most ten times the base."""
    assert config.schedule is not None
    lrs = follow(config, np.array(losses))
    assert np.isfinite(lrs).all()
    assert (lrs > 0).all()
    assert (lrs <= 10.001 * (0.1 if config.schedule.base_lr is None else config.schedule.base_lr)).all()


@given(configs(*METRIC), st.integers(0, 59))
def test_state_goes_through_single_precision(config: RunConfig, cut: int) -> None:
    """A run that goes on from its stored state, bytes of float32, gets the bits of one that never stopped."""
    assert config.schedule is not None
    policy, runs, losses = schedule_policy(config.schedule), RunColumns.of([config]), LOSSES[:60]
    state, lrs = policy.init_state(1), []
    for step, loss in enumerate(losses):
        if step == cut:
            state = np.frombuffer(state.tobytes(), np.float32).reshape(1, policy.state_size).copy()
        assert state.dtype == np.float32
        lr, state = step_of(policy, state, np.array([step]), np.array([loss]), runs)
        lrs.append(lr[0])
    assert np.array(lrs).tobytes() == follow(config, losses).tobytes()


@pytest.mark.parametrize("kind", METRIC)
def test_states_that_go_in_are_not_changed(kind: ScheduleKind) -> None:
    """A step leaves the states that it was given as they were."""
    policy = schedule_policy(ScheduleSpec(kind))
    before = policy.init_state(3)
    step_of(policy, before, np.zeros(3, np.int64), np.ones(3), RunColumns.of([RunConfig()] * 3))
    assert not before.any()
