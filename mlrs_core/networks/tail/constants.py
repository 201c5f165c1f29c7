"""The counts that fix the shape of the tail network, and the numbers that a model of it may choose."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_type_hints

import numpy as np
import numpy.typing as npt

from mlrs_core.errors import InvalidFieldError

SCALES = 6
"""Moving averages of the loss."""
SOFT_STEPS = 9
"""Soft steps through the horizon."""
LOSS_FEATURES = 2 + 2 * (SCALES - 1) + 3
"""Inputs of the cell that come from training losses."""
PROGRESS_FEATURES = SOFT_STEPS + 3
"""Inputs that come from the position in the horizon."""
OWN_FEATURES = 7
"""Inputs that come from the learning rate so far and from the config."""
SIGNAL_FEATURES = 8
"""Inputs that come from signals of the optimizer."""
VALIDATION_FEATURES = 7
"""Inputs that come from validation losses."""
FEATURES = LOSS_FEATURES + PROGRESS_FEATURES + OWN_FEATURES + SIGNAL_FEATURES + VALIDATION_FEATURES
"""All inputs of the cell, in this order."""


@dataclass(frozen=True)
class Within:
    """The range of a constant."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class TailConstants:
    """The numbers that the advice of a model depends on besides its weights.

    Raises:
        InvalidFieldError: one is out of range.
    """

    looks: Annotated[int, Within(1, 10**9)] = 100
    """Looks are at most this share of the horizon apart: horizon / looks, rounded up."""
    first_looks: Annotated[int, Within(1, 10**9)] = 15
    """Looks are also at most as many steps apart as the number of steps so far, divided by this."""
    unknown_horizon: Annotated[int, Within(1, 10**9)] = 100
    """The shortest horizon that an unknown one counts as."""
    jump: Annotated[float, Within(0.0, 1e6)] = 2.0
    """A loss this far above its fastest average, on the scale of x, makes a look of its own."""
    floor: Annotated[float, Within(1e-30, 1.0)] = 1e-4
    """What keeps the logarithm of a positive loss from minus infinity, in units of ref."""
    max_level: Annotated[float, Within(1e-3, 1e30)] = 1e4
    """The loss over ref counts within plus and minus this."""
    min_ref: Annotated[float, Within(1e-30, 3e38)] = 1e-8
    """The lower bound of ref where it is the first loss."""
    max_ref: Annotated[float, Within(1e-30, 3e38)] = 3e38
    """The upper bound of ref where it is the first loss."""
    fastest: Annotated[float, Within(1e-2, 1e6)] = 2.0
    """The time constant of the fastest average of the loss, in looks."""
    slowest: Annotated[float, Within(1e-2, 1e6)] = 80.0
    """The time constant of the slowest one."""
    variance_rate: Annotated[float, Within(0.0, 1.0)] = 0.05
    """How fast the variance of the loss follows, a look; faster at first."""
    first_variance: Annotated[float, Within(0.0, 1e6)] = 0.01
    """The variance before the first look."""
    soft_steps: tuple[float, ...] = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97, 1.0)
    """Where in the horizon the soft steps are."""
    signal_rate: Annotated[float, Within(1e-6, 1.0)] = 0.3
    """How fast the fast averages of signals follow, a look that has any; faster at first."""
    slow_signal_rate: Annotated[float, Within(1e-6, 1.0)] = 0.06
    """How fast the slow ones follow."""
    usual_update: Annotated[float, Within(-50.0, 50.0)] = -3.3
    """ln(norm of the update / norm of the weights) that counts as 0."""
    forget_bias: Annotated[float, Within(-1e3, 1e3)] = 1.0
    """What is added to the forget gates' preactivations."""
    pace: Annotated[float, Within(0.0, 100.0)] = 0.12
    """How far the drift can go at a look, either way."""
    min_drift: Annotated[float, Within(-50.0, 50.0)] = -8.0
    """The least drift."""
    max_drift: Annotated[float, Within(-50.0, 50.0)] = 7.0
    """The greatest drift."""
    reach: Annotated[float, Within(0.0, 50.0)] = 1.2
    """How far the second part of the correction can be from 0, either way."""
    warmup: Annotated[float, Within(0.0, 1.0)] = 0.05
    """The share of the horizon in which the schedule rises."""
    cooldown: Annotated[float, Within(1e-6, 1.0)] = 0.2
    """The share of the horizon, at its end, in which it falls to 0."""

    def __post_init__(self) -> None:
        """Check every number, and keep each as the type that it has in files."""
        kinds = get_type_hints(type(self), include_extras=True)
        for field in dataclasses.fields(self):
            given = getattr(self, field.name)
            if field.name == "soft_steps":
                object.__setattr__(self, field.name, _soft_steps(given))
                continue
            kind, limits = get_args(kinds[field.name])
            object.__setattr__(self, field.name, _number(field.name, given, kind, limits))
        for low, high in (("min_ref", "max_ref"), ("min_drift", "max_drift"), ("fastest", "slowest")):
            if getattr(self, low) > getattr(self, high):
                raise InvalidFieldError(f"constants.{low}", f"must be at most {high}")

    @property
    def rates(self) -> npt.NDArray[np.float64]:
        """How fast each average of the loss follows, a look, (SCALES,): evenly spread in the logarithm."""
        spread = self.fastest * (self.slowest / self.fastest) ** (np.arange(SCALES) / (SCALES - 1))
        rates: npt.NDArray[np.float64] = 1 - np.exp(-1 / spread)
        return rates


def _number(name: str, value: object, kind: type, limits: Within) -> float:
    kinds = int if kind is int else int | float
    if not isinstance(value, kinds) or isinstance(value, bool) or not limits.low <= value <= limits.high:
        what = "a whole number" if kind is int else "a number"
        raise InvalidFieldError(
            f"constants.{name}", f"must be {what}, {limits.low:g} to {limits.high:g}, is {value!r}"
        )
    number: float = kind(value)
    return number


def _soft_steps(value: Any) -> tuple[float, ...]:
    numbers = isinstance(value, list | tuple) and all(type(one) in (int, float) for one in value)
    if not numbers or len(value) != SOFT_STEPS or not all(math.isfinite(one) for one in value):
        raise InvalidFieldError("constants.soft_steps", f"must be {SOFT_STEPS} numbers, is {value!r}")
    return tuple(float(one) for one in value)
