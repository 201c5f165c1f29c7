"""Schedules: held against torch's where torch has one, against the papers' formulas where not."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from mlrs_core.advise import step as step_of
from mlrs_core.config import Optimizer, RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.policy import RunColumns
from mlrs_core.schedules.base import default_lrs
from mlrs_core.schedules.kernel import schedule_policy
from tests.core.schedules.cases import LOSS_FREE, configs, follow, lrs_of

BASE = 0.3


def torch_lrs(make: Callable[[torch.optim.Optimizer], Any], steps: int, lr: float = BASE) -> list[float]:
    """Return the LRs that one of torch's schedulers gives to the first `steps` updates."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    scheduler, lrs = make(optimizer), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR calls a deprecated form of step
        for _ in range(steps):
            lrs.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            scheduler.step()
    return lrs


ORACLES: dict[str, tuple[ScheduleKind, dict[str, Any], Callable[[Any], Any]]] = {
    "constant": (ScheduleKind.CONSTANT, {}, lambda o: lr_scheduler.LambdaLR(o, lambda _: 1.0)),
    "multi-step": (
        ScheduleKind.MULTI_STEP,
        {"milestones": (3, 20, 21), "factor": 0.5},
        lambda o: lr_scheduler.MultiStepLR(o, [3, 20, 21], gamma=0.5),
    ),
    "multi-step of the horizon": (
        ScheduleKind.MULTI_STEP,
        {"horizon": 40},
        lambda o: lr_scheduler.MultiStepLR(o, [20, 30]),
    ),
    "exponential": (
        ScheduleKind.EXPONENTIAL,
        {"factor": 0.9},
        lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    ),
    "cosine": (
        ScheduleKind.COSINE,
        {"horizon": 40},
        lambda o: lr_scheduler.CosineAnnealingLR(o, 40),
    ),
    "cosine to a tenth": (
        ScheduleKind.COSINE,
        {"horizon": 40, "final_lr": 0.1},
        lambda o: lr_scheduler.CosineAnnealingLR(o, 40, eta_min=0.1 * BASE),
    ),
    "linear": (
        ScheduleKind.LINEAR,
        {"horizon": 33, "final_lr": 0.25},
        lambda o: lr_scheduler.LinearLR(o, 1.0, 0.25, total_iters=33),
    ),
    "sgdr": (
        ScheduleKind.SGDR,
        {"period": 7},
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 7),
    ),
    "sgdr that doubles": (
        ScheduleKind.SGDR,
        {"period": 5, "period_mult": 2, "final_lr": 0.01},
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, 2, eta_min=0.01 * BASE),
    ),
    "one-cycle": (
        ScheduleKind.ONE_CYCLE,
        {"horizon": 41},
        lambda o: lr_scheduler.OneCycleLR(o, BASE, 41, cycle_momentum=False),
    ),
    "one-cycle with its own shape": (
        ScheduleKind.ONE_CYCLE,
        {"horizon": 41, "peak_fraction": 0.5, "start_division": 10.0, "final_division": 100.0},
        lambda o: lr_scheduler.OneCycleLR(
            o, BASE, 41, pct_start=0.5, div_factor=10, final_div_factor=100, cycle_momentum=False
        ),
    ),
}
"""Schedules that torch has too; `horizon` is the run's."""


@pytest.mark.parametrize("name", ORACLES)
def test_schedule_is_that_of_torch(name: str) -> None:
    """A schedule of torch's, step for step up to its end."""
    kind, numbers, make = ORACLES[name]
    steps = 41 if kind is ScheduleKind.ONE_CYCLE else 40
    expected = torch_lrs(make, steps)
    assert lrs_of(kind, steps, base_lr=BASE, **numbers) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_warmup_and_cosine_are_those_of_torch() -> None:
    """A warmup and a cosine over the rest are torch's LinearLR and CosineAnnealingLR in sequence."""

    def make(optimizer: torch.optim.Optimizer) -> lr_scheduler.SequentialLR:
        warmup = lr_scheduler.LinearLR(optimizer, 1 / 11, total_iters=10)
        return lr_scheduler.SequentialLR(
            optimizer, [warmup, lr_scheduler.CosineAnnealingLR(optimizer, 30)], [10]
        )

    lrs = lrs_of(ScheduleKind.COSINE, 40, base_lr=BASE, warmup=10, horizon=40)
    assert lrs == pytest.approx(torch_lrs(make, 40), rel=1e-9)


def test_wsd_is_the_formula_of_the_paper() -> None:
    """The LR stays at the base, then falls as 1 - sqrt over the last fifth of the horizon."""
    expected = [0.2 if n < 80 else 0.2 * (1 - math.sqrt((n - 80) / 20)) for n in range(101)]
    lrs = lrs_of(ScheduleKind.WSD, 101, base_lr=0.2, horizon=100)
    assert lrs == pytest.approx(expected, rel=1e-9)


def test_exponential_falls_to_a_hundredth_at_the_horizon() -> None:
    """Without a factor, 1 % of the base LR is left at the horizon, whatever the warmup."""
    lrs = lrs_of(ScheduleKind.EXPONENTIAL, 101, base_lr=1.0, warmup=10, horizon=100)
    assert lrs[100] == pytest.approx(0.01)
    assert lrs[50] / lrs[49] == pytest.approx(lrs[20] / lrs[19])


def test_sgdr_fills_the_horizon_with_three_cycles() -> None:
    """Without a period, restarts are where three cycles, each twice as long as the one before, meet."""
    lrs = lrs_of(ScheduleKind.SGDR, 70, base_lr=1.0, period_mult=2, horizon=70)
    assert np.flatnonzero(lrs == 1.0).tolist() == [0, 10, 30]


@given(configs(*LOSS_FREE))
def test_lrs_are_finite_and_within_the_base(config: RunConfig) -> None:
    """LRs are at most the base LR, positive before the horizon, and never negative or non-finite."""
    assert config.schedule is not None
    assert config.horizon is not None
    lrs = follow(config, np.ones(config.horizon + 20))
    base = config.schedule.base_lr or 0.1
    assert np.isfinite(lrs).all()
    assert (lrs <= base * (1 + 1e-12)).all()
    assert (lrs[: config.horizon] > 0).all()
    assert (lrs >= 0).all()


@given(configs(ScheduleKind.COSINE, ScheduleKind.LINEAR, ScheduleKind.WSD, ScheduleKind.ONE_CYCLE))
def test_final_lr_is_held_beyond_the_horizon(config: RunConfig) -> None:
    """From the horizon on, a schedule over it stays at its final LR."""
    assert config.schedule is not None
    assert config.horizon is not None
    spec = config.schedule.resolved()
    lrs = follow(config, np.ones(config.horizon + 10))[config.horizon :]
    final = spec.final_lr
    if final is None:
        final = 1 / ((spec.start_division or 1) * (spec.final_division or 1))
    base = 0.1 if spec.base_lr is None else spec.base_lr
    assert lrs == pytest.approx(np.full(10, final * base), rel=1e-9)


@given(configs(*LOSS_FREE))
def test_warmup_is_linear(config: RunConfig) -> None:
    """In the warmup, the LRs of a schedule rise by one and the same amount a step, from one such amount."""
    assert config.schedule is not None
    warmup = config.schedule.warmup or 0
    if config.schedule.kind is ScheduleKind.MULTI_STEP:  # whose milestones are counted from the run's start
        config = RunConfig(horizon=400, schedule=ScheduleSpec(ScheduleKind.MULTI_STEP, warmup=warmup))
    lrs = follow(config, np.ones(warmup + 1))
    assert lrs == pytest.approx(lrs[-1] * np.arange(1, warmup + 2) / (warmup + 1), rel=1e-9)


@given(st.lists(configs(*ScheduleKind), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_batches_change_no_bit(some: list[RunConfig], random: Any) -> None:
    """A run gets the same bits alone as among runs of its shape with other numbers."""
    rng = np.random.default_rng(random.getrandbits(32))
    for config in some:
        assert config.schedule is not None
        others = [
            RunConfig(
                horizon=(horizon := int(rng.integers(1, 200))),
                schedule=replace(
                    config.schedule,
                    base_lr=None if rng.random() < 0.2 else float(rng.uniform(1e-3, 1.0)),
                    warmup=int(rng.integers(0, horizon)),
                ),
                momentum=float(rng.random()),
                optimizer=Optimizer(int(rng.integers(0, 7))),
            )
            for _ in range(20)
        ]
        group = [*others[:10], config, *others[10:]]
        policy, runs = schedule_policy(config.schedule), RunColumns.of(group)
        losses = rng.exponential(2.0, (40, len(group)))
        states, batched = policy.init_state(len(group)), []
        for step, row in enumerate(losses):
            lrs, states = step_of(policy, states, np.full(len(group), step), row, runs)
            batched.append(lrs[10])
        assert np.array(batched).tobytes() == follow(config, losses[:, 10]).tobytes()


@pytest.mark.parametrize("kind", LOSS_FREE)
def test_huge_steps_are_advised(kind: ScheduleKind) -> None:
    """The last step of the longest horizon gets a finite LR, with the longest warmup too."""
    top = 2**53
    for warmup in (0, top - 1):
        spec = ScheduleSpec(kind, base_lr=1.0, warmup=warmup)
        runs = RunColumns.of([RunConfig(horizon=top, schedule=spec)])
        policy = schedule_policy(spec)
        for step in (0, top - 1, top):
            lrs, _ = step_of(policy, policy.init_state(1), np.array([step]), np.array([1.0]), runs)
            assert 0 <= lrs[0] <= 1
            assert lrs[0] > 0 or step == top


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (ScheduleKind.MULTI_STEP, {"milestones": tuple(range(1, 65)), "factor": 1e-300}),
        (ScheduleKind.EXPONENTIAL, {"factor": 1e-300}),
        (ScheduleKind.ONE_CYCLE, {"start_division": 1e12, "final_division": 1e12}),
        (ScheduleKind.PLATEAU, {"factor": 1e-300, "patience": 0, "smoothing": 1}),
    ],
)
def test_the_least_base_lr_does_not_underflow(kind: ScheduleKind, shape: dict[str, Any]) -> None:
    """The least base LR, under the smallest factors there are, is above 0 at every step of the horizon."""
    for warmup in (0, 90):
        lrs = lrs_of(kind, 100, horizon=100, base_lr=1e-30, warmup=warmup, **shape)
        assert (lrs > 0).all()
    initial = RunConfig(horizon=100, initial_lr=5e-324, schedule=ScheduleSpec(kind, **shape))
    assert (follow(initial, np.ones(100)) > 0).all()


ONE_CYCLES = [
    (steps, fraction)
    for steps in (1, 2, 3, 4, 5, 7, 11)
    for fraction in (0.05, 0.2, 0.3, 0.5, 0.9)
    if fraction * steps != 1  # where torch divides by 0
]


@pytest.mark.parametrize(("steps", "fraction"), ONE_CYCLES)
def test_short_one_cycle_is_that_of_torch(steps: int, fraction: float) -> None:
    """A cycle of a few steps is torch's, also with its peak before the first step."""
    expected = torch_lrs(
        lambda o: lr_scheduler.OneCycleLR(o, BASE, steps, pct_start=fraction, cycle_momentum=False), steps
    )
    lrs = lrs_of(ScheduleKind.ONE_CYCLE, steps, horizon=steps, base_lr=BASE, peak_fraction=fraction)
    assert lrs == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("steps", [2, 3, 11])
def test_one_cycle_may_end_at_its_peak(steps: int) -> None:
    """With the whole cycle before the peak, the LRs are torch's, and the last is the base LR."""
    expected = torch_lrs(
        lambda o: lr_scheduler.OneCycleLR(o, BASE, steps, pct_start=1.0, cycle_momentum=False), steps - 1
    )
    lrs = lrs_of(ScheduleKind.ONE_CYCLE, steps, horizon=steps, base_lr=BASE, peak_fraction=1.0)
    assert lrs == pytest.approx([*expected, BASE], rel=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_one_cycle_may_begin_at_its_peak(steps: int) -> None:
    """With the peak at the first step, where torch divides by 0, that step has the base LR."""
    lrs = lrs_of(ScheduleKind.ONE_CYCLE, steps, horizon=steps, base_lr=BASE, peak_fraction=1 / steps)
    assert lrs[0] == BASE
    assert (np.diff(lrs) < 0).all()


def ratios(kind: ScheduleKind, steps: list[int], horizon: int, **numbers: Any) -> list[float]:
    """Return the LRs at some steps over the base LR."""
    lrs = lrs_of(kind, max(steps) + 1, horizon=horizon, base_lr=1.0, **numbers)
    return [float(lrs[step]) for step in steps]


def test_derived_defaults_are_for_ever() -> None:
    """What the horizon sets where nothing is given is not stored with a run: it never changes."""
    K = ScheduleKind  # noqa: N806 # short, for a table
    assert ratios(K.MULTI_STEP, [50, 51, 75, 76], 101) == pytest.approx([1.0, 0.1, 0.1, 0.01])
    assert ratios(K.EXPONENTIAL, [0, 50, 100], 100) == pytest.approx([1.0, 0.1, 0.01])
    assert np.flatnonzero(lrs_of(K.SGDR, 100, horizon=100, base_lr=1.0) == 1).tolist() == [0, 34, 68]
    flat = np.full(200, 1.0)
    spec = ScheduleSpec(K.PLATEAU, base_lr=1.0)
    for horizon, fall in ((150, 16), (99, 10), (5, 2)):
        assert int(np.argmax(follow(RunConfig(horizon=horizon, schedule=spec), flat) < 1)) == fall
    spec, dropping = replace(spec, patience=0), np.array([1.0] + 400 * [0.5])
    for horizon, smoothing in ((1000, 10), (None, 100)):
        derived = follow(RunConfig(horizon=horizon, schedule=spec), dropping)
        given = follow(RunConfig(schedule=replace(spec, smoothing=smoothing)), dropping)
        other = follow(RunConfig(schedule=replace(spec, smoothing=smoothing + 1)), dropping)
        assert derived.tobytes() == given.tobytes() != other.tobytes()


@pytest.mark.parametrize(
    ("config", "default"),
    [
        (RunConfig(), 0.1),
        (RunConfig(optimizer=Optimizer.SGD), 0.1),
        (RunConfig(optimizer=Optimizer.MOMENTUM), 0.01),
        (RunConfig(optimizer=Optimizer.NESTEROV, momentum=0.5), 0.05),
        (RunConfig(optimizer=Optimizer.ADAM), 1e-3),
        (RunConfig(optimizer=Optimizer.ADAMW, momentum=0.9), 1e-3),
        (RunConfig(optimizer=Optimizer.OTHER), 1e-3),
    ],
)
def test_base_lr_is_the_default_one_where_none_is_given(config: RunConfig, default: float) -> None:
    """Without a base LR, a schedule starts where the optimizer does by default."""
    assert default_lrs(RunColumns.of([config])) == pytest.approx([default])
    spec = ScheduleSpec(ScheduleKind.CONSTANT)
    whole = RunConfig(optimizer=config.optimizer, momentum=config.momentum, schedule=spec)
    assert follow(whole, np.ones(1)) == pytest.approx([default])


def test_base_lr_goes_before_the_initial_lr() -> None:
    """A run's `initial_lr` is its base LR, unless its schedule gives one."""
    spec = ScheduleSpec(ScheduleKind.CONSTANT)
    assert follow(RunConfig(initial_lr=0.7, schedule=spec), np.ones(1)) == [0.7]
    named = ScheduleSpec(ScheduleKind.CONSTANT, base_lr=0.2)
    assert follow(RunConfig(initial_lr=0.7, schedule=named), np.ones(1)) == [0.2]
