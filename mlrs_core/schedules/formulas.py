"""The schedules that are a function of the step: what each multiplies the base LR by.

t is the step from 0, W the warmup, H the horizon, s = max(t - W, 0) the steps since the warmup, and
S = H - W what is left for the schedule. f is `final_lr`. A schedule over the horizon holds its final
value from t = H on. All return (n,) float64 in [0, 1].

Differences that vanish at the end of a schedule are written as products, so that small LRs are as exact
as large ones: 1 + cos(pi p) = 2 sin^2(pi (1 - p) / 2), 1 - sqrt(p) = (1 - p) / (1 + sqrt(p)). Whatever
meets a transcendental function is an array in one piece: NumPy computes others by other code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from mlrs_core.config import ScheduleKind, ScheduleSpec
from mlrs_core.policy import Floats, RunColumns, Steps

Formula = Callable[[ScheduleSpec, Steps, RunColumns], Floats]
"""From the resolved spec, the steps (n,) and the runs to the multipliers (n,)."""

DEFAULT_MILESTONES = (0.5, 0.75)
"""The milestones of a multi-step schedule that is given none, as shares of the horizon (He et al. 2016)."""
LEAST = 1e-200
"""No product of factors goes below this: times the least base LR and a share of a warmup, it is not 0."""
FALLEN = 0.01
"""Where an exponential schedule without a factor is at the horizon."""
DEFAULT_CYCLES = 3
"""The cycles of a schedule of warm restarts without a period."""


def constant(_spec: ScheduleSpec, steps: Steps, _runs: RunColumns) -> Floats:
    """Return 1."""
    return np.ones(len(steps))


def multi_step(spec: ScheduleSpec, steps: Steps, runs: RunColumns) -> Floats:
    """Return factor**k, at least 1e-200, where k milestones are at or before t.

    He et al. 2016 (arXiv 1512.03385, section 4.2): milestones at 1/2 and 3/4 of the horizon, the
    default. `torch.optim.lr_scheduler.MultiStepLR`.
    """
    if spec.milestones is None:
        passed = sum(
            (steps >= np.ceil(share * runs.horizon)).astype(np.int64) for share in DEFAULT_MILESTONES
        )
        count = len(DEFAULT_MILESTONES)
    else:
        passed = np.searchsorted(np.array(spec.milestones), steps, side="right")
        count = len(spec.milestones)
    powers = np.maximum([_given(spec.factor) ** k for k in range(count + 1)], LEAST)
    multipliers: Floats = powers[passed]
    return multipliers


def exponential(spec: ScheduleSpec, steps: Steps, runs: RunColumns) -> Floats:
    """Return factor**s; without a factor 0.01**(s / S), so that 1 % is left at the horizon.

    `torch.optim.lr_scheduler.ExponentialLR`. It falls on beyond the horizon, but not below 1e-200.
    """
    since = _since_warmup(steps, runs)
    if spec.factor is None:
        exponent = math.log(FALLEN) * (since / _span(runs))
    else:
        exponent = math.log(spec.factor) * since
    return np.exp(np.maximum(exponent, math.log(LEAST)))


def cosine(spec: ScheduleSpec, steps: Steps, runs: RunColumns) -> Floats:
    """Return f + (1 - f) (1 + cos(pi s / S)) / 2.

    Loshchilov & Hutter 2017 (arXiv 1608.03983, eq. 5) without restarts.
    `torch.optim.lr_scheduler.CosineAnnealingLR(T_max=S, eta_min=f * base)`.
    """
    return _towards(spec.final_lr, _half_cosine(_left(steps, runs)))


def linear(spec: ScheduleSpec, steps: Steps, runs: RunColumns) -> Floats:
    """Return f + (1 - f) (1 - s / S).

    `torch.optim.lr_scheduler.LinearLR(start_factor=1, end_factor=f, total_iters=S)`.
    """
    return _towards(spec.final_lr, _left(steps, runs))


def wsd(spec: ScheduleSpec, steps: Steps, runs: RunColumns) -> Floats:
    """Return 1 until the cooldown, then f + (1 - f) (1 - sqrt(p)) with p from 0 to 1 over it.

    Warmup, stable, decay with the 1-sqrt cooldown of Hägele et al. 2024 (arXiv 2405.18392, section 3).
    The cooldown is the last `cooldown_fraction` of the whole horizon, and begins at W at the earliest.
    """
    length = np.minimum(_given(spec.cooldown_fraction) * runs.horizon, _span(runs))
    left = np.clip((runs.horizon - steps) / length, 0.0, 1.0)
    return _towards(spec.final_lr, left / (1 + np.sqrt(1 - left)))


def one_cycle(spec: ScheduleSpec, steps: Steps, runs: RunColumns) -> Floats:
    """Return a half cosine up to 1 at s = P, then one down to the end at s = S - 1.

    It starts at 1 / `start_division` and ends at that over `final_division`; P = `peak_fraction` * S - 1.
    Smith & Topin 2018 (arXiv 1708.07120), in the form of `torch.optim.lr_scheduler.OneCycleLR`, whose
    `max_lr` is the base LR here. Where P < 0 the peak is before the first step, as it is there; where P = 0
    it is the first step, for which torch divides by 0. The warmup, if any, leads up to the start.
    """
    start = 1 / _given(spec.start_division)
    end = start / _given(spec.final_division)
    since, last = _since_warmup(steps, runs), _span(runs) - 1
    peak = _given(spec.peak_fraction) * _span(runs) - 1
    risen = np.where(peak > 0, np.clip(since / np.where(peak > 0, peak, 1.0), 0.0, 1.0), 1.0)
    left = np.clip((last - since) / np.where(last > peak, last - peak, 1.0), 0.0, 1.0)
    up = start + (1 - start) * _half_cosine(risen)
    down = end + (1 - end) * _half_cosine(left)
    return np.where(since <= peak, up, down)


def sgdr(spec: ScheduleSpec, steps: Steps, runs: RunColumns) -> Floats:
    """Return f + (1 - f) (1 + cos(pi c / L)) / 2, where c is the position in a cycle of L steps.

    Loshchilov & Hutter 2017 (arXiv 1608.03983, eq. 5): cycles of period, period * mult, period * mult**2
    ... steps. `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`. Without a period, the first three
    cycles fill S. The restarts go on beyond the horizon.
    """
    mult = _given(spec.period_mult)
    since = np.maximum(steps - runs.warmup, 0)
    if spec.period is None:
        cycles = sum(mult**k for k in range(DEFAULT_CYCLES))
        length = np.maximum(-(-(runs.horizon - runs.warmup) // cycles), 1)
    else:
        length = np.full(len(steps), spec.period, np.int64)
    position, length = _in_cycle(since, length, int(mult))
    return _towards(spec.final_lr, _half_cosine((length - position) / length))


def _in_cycle(since: Steps, length: Steps, mult: int) -> tuple[Steps, Steps]:
    """Return the position in the cycle and the cycle's length, in whole numbers, both (n,)."""
    if mult == 1:
        return since % length, length
    while (beyond := since >= length).any():
        since = np.where(beyond, since - length, since)
        length = np.where(beyond, length * mult, length)
    return since, length


def _half_cosine(left: Floats) -> Floats:
    """Return (1 + cos(pi (1 - left))) / 2, for left in [0, 1]."""
    wave: Floats = np.sin((math.pi / 2) * left) ** 2
    return wave


def _towards(final: float | None, left: Floats) -> Floats:
    """Return what is between the final LR and 1, of which `left` is left."""
    last = _given(final)
    return last + (1 - last) * left


def _since_warmup(steps: Steps, runs: RunColumns) -> Floats:
    since: Floats = np.maximum(steps - runs.warmup, 0).astype(np.float64)
    return since


def _span(runs: RunColumns) -> Floats:
    span: Floats = np.maximum(runs.horizon - runs.warmup, 1).astype(np.float64)
    return span


def _left(steps: Steps, runs: RunColumns) -> Floats:
    """Return the share of S that is left, (n,): 1 until the warmup ends, 0 from the horizon on."""
    return np.clip((runs.horizon - steps) / _span(runs), 0.0, 1.0)


def _given(value: float | None) -> float:
    """Return a value that a resolved spec has."""
    if value is None:
        raise TypeError("the spec is not resolved")
    return value


FORMULAS: Mapping[ScheduleKind, Formula] = {
    ScheduleKind.CONSTANT: constant,
    ScheduleKind.MULTI_STEP: multi_step,
    ScheduleKind.EXPONENTIAL: exponential,
    ScheduleKind.COSINE: cosine,
    ScheduleKind.LINEAR: linear,
    ScheduleKind.WSD: wsd,
    ScheduleKind.ONE_CYCLE: one_cycle,
    ScheduleKind.SGDR: sgdr,
}
"""The formula of each kind that does not watch the loss."""
