"""The schedules that are a function of the step, computed here: without a daemon, in plain Python.

    from mlrs import schedules

    lr = schedules.cosine(step, base_lr=0.1, horizon=10_000, warmup=100)

Each equals what the daemon serves to a run with that `policy`, except in the last bits. They are for loops
that must continue without a daemon, and to inspect a schedule before using it. docs/guides/schedules.md has
the formulas and their sources. `plateau` and `greedy` depend on the losses, so they are not here.

Every function takes the `step`, from 0; `base_lr`; and `warmup`, the steps of linear warmup, in which the
LR is (step + 1) / (warmup + 1) of the schedule's. `horizon` is the total number of steps; from there on the
schedules over the horizon hold their final LR. Each raises `InvalidArgumentError` for an argument of a
wrong type or out of range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlrs.errors import InvalidArgumentError
from mlrs.values import arguments as check
from mlrs.values.checks import MAX_STEPS, whole

__all__ = ["constant", "cosine", "exponential", "linear", "multi_step", "one_cycle", "sgdr", "wsd"]

_CYCLES = 3
"""Cycles of warm restarts in a horizon, where no period is given."""
_LEAST = 1e-200
"""No product of factors goes below this."""


def constant(step: int, *, base_lr: float, warmup: int = 0) -> float:
    """Return the base LR, after the warmup."""
    return _Progress.of(step, base_lr, warmup).lr


def multi_step(
    step: int,
    *,
    base_lr: float,
    milestones: Sequence[int] | None = None,
    horizon: int | None = None,
    factor: float = 0.1,
    warmup: int = 0,
) -> float:
    """Return the LR times `factor` for each milestone passed; by default 1/2 and 3/4 of the horizon."""
    progress = _Progress.of(step, base_lr, warmup)
    falls = check.parameter("factor", factor)
    if milestones is not None:
        at = check.parameter("milestones", milestones)
    else:
        total = progress.until(horizon, "or milestones")
        at = (-(-total // 2), -(-3 * total // 4))
    passed = sum(1 for milestone in at if progress.step >= milestone)
    return progress.lr * max(float(falls**passed), _LEAST)


def exponential(
    step: int, *, base_lr: float, factor: float | None = None, horizon: int | None = None, warmup: int = 0
) -> float:
    """Return the LR times `factor` for each step since the warmup; by default 1 % is left at the horizon."""
    progress = _Progress.of(step, base_lr, warmup)
    if factor is None:
        exponent = math.log(0.01) * (progress.since / progress.span(horizon, "or a factor"))
    else:
        exponent = math.log(check.parameter("factor", factor)) * progress.since
    return progress.lr * math.exp(max(exponent, math.log(_LEAST)))


def cosine(step: int, *, base_lr: float, horizon: int, warmup: int = 0, final_lr: float = 0.0) -> float:
    """Return half a cosine from the base LR to `final_lr` times it."""
    progress = _Progress.of(step, base_lr, warmup)
    return progress.lr * _towards(final_lr, _half_cosine(progress.left(horizon)))


def linear(step: int, *, base_lr: float, horizon: int, warmup: int = 0, final_lr: float = 0.0) -> float:
    """Return a straight line from the base LR to `final_lr` times it."""
    progress = _Progress.of(step, base_lr, warmup)
    return progress.lr * _towards(final_lr, progress.left(horizon))


def wsd(
    step: int,
    *,
    base_lr: float,
    horizon: int,
    warmup: int = 0,
    final_lr: float = 0.0,
    cooldown_fraction: float = 0.2,
) -> float:
    """Return the base LR, then a cooldown of the form 1 - sqrt over the last part of the horizon."""
    progress = _Progress.of(step, base_lr, warmup)
    total = progress.until(horizon)
    length = min(check.parameter("cooldown_fraction", cooldown_fraction) * total, progress.span(horizon))
    left = min(max((total - progress.step) / length, 0.0), 1.0)
    return progress.lr * _towards(final_lr, left / (1 + math.sqrt(1 - left)))


def one_cycle(
    step: int,
    *,
    base_lr: float,
    horizon: int,
    warmup: int = 0,
    peak_fraction: float = 0.3,
    start_division: float = 25.0,
    final_division: float = 1e4,
) -> float:
    """Return half a cosine up to the base LR, then one down to almost 0."""
    progress = _Progress.of(step, base_lr, warmup)
    start = 1 / check.parameter("start_division", start_division)
    end = start / check.parameter("final_division", final_division)
    last = progress.span(horizon) - 1
    peak = check.parameter("peak_fraction", peak_fraction) * progress.span(horizon) - 1
    if progress.since <= peak:
        share = start + (1 - start) * _half_cosine(progress.since / peak if peak else 1.0)
    else:
        left = max(last - progress.since, 0) / (last - peak) if last > peak else 0.0
        share = end + (1 - end) * _half_cosine(left)
    return float(progress.lr * share)


def sgdr(
    step: int,
    *,
    base_lr: float,
    period: int | None = None,
    period_mult: int = 1,
    horizon: int | None = None,
    warmup: int = 0,
    final_lr: float = 0.0,
) -> float:
    """Return half a cosine in each cycle; by default three cycles fill the horizon."""
    progress = _Progress.of(step, base_lr, warmup)
    mult = check.parameter("period_mult", period_mult)
    if period is None:
        length = -(-progress.span(horizon, "or a period") // sum(mult**k for k in range(_CYCLES)))
    else:
        length = check.parameter("period", period)
    since = progress.since % length if mult == 1 else progress.since
    while since >= length:
        since, length = since - length, length * mult
    return progress.lr * _towards(final_lr, _half_cosine((length - since) / length))


@dataclass(frozen=True, slots=True)
class _Progress:
    """A step of a schedule, checked."""

    step: int
    warmup: int
    lr: float
    """The base LR times the warmup's factor."""

    @classmethod
    def of(cls, step: int, base_lr: float, warmup: int) -> _Progress:
        at, steps = check.step(step), check.parameter("warmup", warmup)
        base = check.parameter("base_lr", base_lr)
        return cls(at, steps, base * min((at + 1) / (steps + 1), 1.0))

    @property
    def since(self) -> int:
        """The number of steps since the warmup."""
        return max(self.step - self.warmup, 0)

    def until(self, horizon: int | None, instead: str = "") -> int:
        """Return a horizon, which must be beyond the warmup."""
        if horizon is None and instead:
            raise InvalidArgumentError(f"horizon must be given, {instead}", field="horizon")
        total = whole("horizon", horizon, low=1, high=MAX_STEPS)
        if total <= self.warmup:
            raise InvalidArgumentError(
                f"warmup must be below the horizon, {total}; is {self.warmup}", field="warmup"
            )
        return total

    def span(self, horizon: int | None, instead: str = "") -> int:
        """Return the steps of a horizon that follow the warmup."""
        return self.until(horizon, instead) - self.warmup

    def left(self, horizon: int) -> float:
        """Return the share of these steps that is left."""
        span = self.span(horizon)
        return min(max((self.warmup + span - self.step) / span, 0.0), 1.0)


def _half_cosine(left: float) -> float:
    """Return (1 + cos(pi (1 - left))) / 2, exact also where it is small."""
    return math.sin((math.pi / 2) * left) ** 2


def _towards(final_lr: float, left: float) -> float:
    final = float(check.parameter("final_lr", final_lr))
    return final + (1 - final) * left
