"""The schedules that are a function of the step, computed here: without a daemon, in plain Python.

    from mlrs_client import schedules

    lr = schedules.cosine(step, base_lr=0.1, horizon=10_000, warmup=100)

Each is what the daemon serves to a run with that `policy`, to the last few bits. For a loop that must go on
without a daemon, and to look at a schedule before using it. docs/schedules.md has the formulas and their
sources. `plateau` and `greedy` depend on the losses, so they are not here.

Every function takes the `step`, from 0; `base_lr`; and `warmup`, the steps of linear warmup, in which the
LR is (step + 1) / (warmup + 1) of the schedule's. `horizon` is the total number of steps; from there on the
schedules over the horizon hold their final LR. Each raises `InvalidArgumentError` for an argument of a
wrong type or out of range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlrs_client import _arguments as check
from mlrs_client._exceptions import InvalidArgumentError

__all__ = ["constant", "cosine", "exponential", "linear", "multi_step", "one_cycle", "sgdr", "wsd"]

_CYCLES = 3
"""Cycles of warm restarts in a horizon, where no period is given."""


def constant(step: int, *, base_lr: float, warmup: int = 0) -> float:
    """Return the base LR, after the warmup."""
    return _warmed(step, base_lr, warmup)


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
    if milestones is None:
        total = _horizon(horizon, 0, "or milestones")
        milestones = [-(-total // 2), -(-3 * total // 4)]
    passed = sum(1 for milestone in milestones if step >= milestone)
    return _warmed(step, base_lr, warmup) * _fraction("factor", factor) ** passed


def exponential(
    step: int, *, base_lr: float, factor: float | None = None, horizon: int | None = None, warmup: int = 0
) -> float:
    """Return the LR times `factor` for each step since the warmup; by default 1 % is left at the horizon."""
    since = max(step - warmup, 0)
    if factor is None:
        exponent = math.log(0.01) * (since / (_horizon(horizon, warmup, "or a factor") - warmup))
    else:
        exponent = math.log(_fraction("factor", factor)) * since
    return _warmed(step, base_lr, warmup) * math.exp(max(exponent, math.log(1e-300)))


def cosine(step: int, *, base_lr: float, horizon: int, warmup: int = 0, final_lr: float = 0.0) -> float:
    """Return half a cosine from the base LR to `final_lr` times it."""
    left = _left(step, horizon, warmup)
    return _warmed(step, base_lr, warmup) * _towards(final_lr, _half_cosine(left))


def linear(step: int, *, base_lr: float, horizon: int, warmup: int = 0, final_lr: float = 0.0) -> float:
    """Return a straight line from the base LR to `final_lr` times it."""
    return _warmed(step, base_lr, warmup) * _towards(final_lr, _left(step, horizon, warmup))


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
    cooldown = _fraction("cooldown_fraction", cooldown_fraction) * horizon
    length = min(cooldown, _horizon(horizon, warmup) - warmup)
    left = min(max((horizon - step) / length, 0.0), 1.0)
    return _warmed(step, base_lr, warmup) * _towards(final_lr, left / (1 + math.sqrt(1 - left)))


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
    """Return half a cosine up to the base LR, then one down to next to nothing."""
    start = 1 / _division("start_division", start_division)
    end = start / _division("final_division", final_division)
    span = _horizon(horizon, warmup) - warmup
    since, last = max(step - warmup, 0), span - 1
    peak = max(_fraction("peak_fraction", peak_fraction) * span - 1, 0.0)
    if since < peak:
        share = start + (1 - start) * _half_cosine(since / max(peak, 1e-9))
    else:
        left = min(max((last - since) / max(last - peak, 1e-9), 0.0), 1.0)
        share = end + (1 - end) * _half_cosine(left)
    return _warmed(step, base_lr, warmup) * share


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
    if period_mult < 1:
        raise InvalidArgumentError(f"period_mult must be >= 1; is {period_mult!r}", field="period_mult")
    if period is None:
        cycles = sum(period_mult**k for k in range(_CYCLES))
        period = -(-(_horizon(horizon, warmup, "or a period") - warmup) // cycles)
    if period < 1:
        raise InvalidArgumentError(f"period must be >= 1; is {period!r}", field="period")
    since, length = max(step - warmup, 0), period
    if period_mult == 1:
        since %= length
    while since >= length:
        since, length = since - length, length * period_mult
    left = (length - since) / length
    return _warmed(step, base_lr, warmup) * _towards(final_lr, _half_cosine(left))


def _warmed(step: int, base_lr: float, warmup: int) -> float:
    """Return the base LR as far as the warmup lets it through."""
    checked = check.schedule("constant", base_lr, warmup)
    if checked is None or checked.base_lr is None:
        raise InvalidArgumentError("base_lr must be a number: there is no daemon to ask", field="base_lr")
    return checked.base_lr * min((check.step(step) + 1) / (warmup + 1), 1.0)


def _horizon(horizon: int | None, warmup: int, instead: str = "") -> int:
    """Return a horizon beyond the warmup."""
    if horizon is None:
        raise InvalidArgumentError(f"horizon must be given, {instead}", field="horizon")
    if horizon < 1:
        raise InvalidArgumentError(f"horizon must be at least 1; is {horizon!r}", field="horizon")
    if horizon <= warmup:
        raise InvalidArgumentError(
            f"warmup must be below the horizon, {horizon!r}; is {warmup!r}", field="warmup"
        )
    return horizon


def _left(step: int, horizon: int, warmup: int) -> float:
    """Return the share of what follows the warmup that is left."""
    return min(max((horizon - step) / (_horizon(horizon, warmup) - warmup), 0.0), 1.0)


def _half_cosine(left: float) -> float:
    """Return (1 + cos(pi (1 - left))) / 2, exact also where it is small."""
    return math.sin((math.pi / 2) * left) ** 2


def _towards(final_lr: float, left: float) -> float:
    if not 0.0 <= final_lr <= 1.0:
        raise InvalidArgumentError(
            f"final_lr must be in [0, 1], a fraction of the base LR; is {final_lr!r}", field="final_lr"
        )
    return final_lr + (1 - final_lr) * left


def _fraction(name: str, value: float) -> float:
    if not 0.0 < value <= 1.0:
        raise InvalidArgumentError(f"{name} must be > 0 and <= 1; is {value!r}", field=name)
    return value


def _division(name: str, value: float) -> float:
    if not 1.0 <= value <= 1e12:
        raise InvalidArgumentError(f"{name} must be 1 to 1e12; is {value!r}", field=name)
    return value
