"""Feature version 1 of the drift network: what it fixes, and the numbers that a model of it may choose.

Counts fix the shape of weights and states, so they belong to the version, as the formulas in `features.py`
do. The numbers belong to the model. Those below are what a model has whose file names none: they never
change, nor do the counts, for stored models depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from mlrs_core.errors import InvalidFieldError

SCALES = 6
"""The number of moving averages of the loss."""
SOFT_STEPS = 9
"""The number of soft steps through the horizon."""
LOSS_FEATURES = 2 + 2 * (SCALES - 1) + 2 + 1
"""The number of inputs of the cell that come from the losses."""
PROGRESS_FEATURES = SOFT_STEPS + 3
"""The number of inputs of the cell that come from the position in the horizon."""
OWN_FEATURES = 2 + 3
"""The number of inputs of the cell that come from the log-LR so far and from the config."""
FEATURES = LOSS_FEATURES + PROGRESS_FEATURES + OWN_FEATURES
"""The number of inputs of the cell: those of losses, of progress, and the others, in this order."""
EXTRAS = SCALES + 9
"""Entries of a run's state besides the cell's: averages, variance, best, sum, count, ticks, drift
(twice), ref, mode."""

BOUNDS: dict[str, tuple[float, float]] = {
    "ticks": (1, 10**9),
    "first_ticks": (1, 10**9),
    "unknown_horizon": (1, 10**9),
    "jump": (0.0, 1e6),
    "floor": (1e-30, 1.0),
    "max_level": (1e-3, 1e30),
    "min_ref": (1e-30, 3e38),
    "max_ref": (1e-30, 3e38),
    "time_constants": (1e-2, 1e6),
    "variance_rate": (0.0, 1.0),
    "first_variance": (0.0, 1e6),
    "soft_steps": (-1e3, 1e3),
    "reach": (-1e3, 1e3),
    "gate_slope": (-1e3, 1e3),
    "gate_start": (-1e3, 1e3),
    "forget_bias": (-1e3, 1e3),
    "rise": (0.0, 100.0),
    "fall": (0.0, 100.0),
    "warmup": (1e-6, 1e6),
    "min_drift": (-50.0, 50.0),
    "max_drift": (-50.0, 50.0),
    "max_start": (0.0, 50.0),
    "default_lr": (1e-12, 1e6),
    "default_adam_lr": (1e-12, 1e6),
    "default_momentum": (0.0, 1.0),
    "max_momentum": (0.0, 0.999999),
}
"""What each constant is within, both included: under any of them advice is finite and positive."""


@dataclass(frozen=True, kw_only=True)
class DriftConstants:
    """The numbers that a model of feature version 1 depends on besides its weights.

    Raises:
        InvalidFieldError: a number is of another type or out of its `BOUNDS`.
    """

    ticks: int = 200
    """The most ticks of a horizon once they are evenly spaced."""
    first_ticks: int = 50
    """Before, the distance between ticks is the number of steps so far, divided by this."""
    unknown_horizon: int = 100
    """The shortest horizon that an unknown one counts as."""
    jump: float = 2.0
    """A loss this far above its fastest average, on the scale of x, makes a tick."""
    floor: float = 1e-4
    """What keeps the logarithm of a positive loss from minus infinity, in units of ref."""
    max_level: float = 1e4
    """The loss over its reference counts within plus and minus this."""
    min_ref: float = 1e-8
    """The lower bound of ref where it is the first loss."""
    max_ref: float = 3e38
    """The upper bound of ref where it is the first loss."""
    time_constants: tuple[float, ...] = (2.0, 80.0)
    """The time constants of the fastest and of the slowest average, in ticks."""
    variance_rate: float = 0.05
    """How fast the variance follows, a tick; faster at first."""
    first_variance: float = 0.01
    """The variance before the first tick."""
    soft_steps: tuple[float, ...] = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)
    """Where in the horizon the soft steps are, `SOFT_STEPS` of them."""
    reach: float = 3.0
    """The log-LR that one unit of the head's first number stands for."""
    gate_slope: float = 4.0
    """What the head's second number is multiplied by in the decay gate."""
    gate_start: float = 3.0
    """What is added to the product of that number and `gate_slope` in the decay gate."""
    forget_bias: float = 1.0
    """What is added to the forget gates' preactivations."""
    rise: float = 0.2
    """How far the log-LR can go up at a tick."""
    fall: float = 0.6
    """How far the log-LR can go down at a tick."""
    warmup: float = 5.0
    """The initial LR over where the first tick starts from."""
    min_drift: float = -14.0
    """The least log-LR over its family's default one."""
    max_drift: float = 7.0
    """The greatest log-LR over its family's default one."""
    max_start: float = 7.0
    """The initial LR counts as within e to this of the default one, either way."""
    default_lr: float = 0.1
    """The default LR of SGD, and times 1 - momentum of SGD with momentum."""
    default_adam_lr: float = 1e-3
    """The default LR of Adam's family."""
    default_momentum: float = 0.9
    """The momentum of a run that does not say."""
    max_momentum: float = 0.999
    """Beyond it, a larger momentum lowers the default LR no further."""

    def __post_init__(self) -> None:
        """Check every number, and keep each as the type that it has in files."""
        for each in fields(self):
            given, default = getattr(self, each.name), each.default
            if not isinstance(default, tuple):
                object.__setattr__(self, each.name, _number(each.name, given, type(default)))
                continue
            if not isinstance(given, list | tuple) or len(given) != len(default):
                raise InvalidFieldError(
                    f"constants.{each.name}", f"must be {len(default)} numbers, is {given!r}"
                )
            object.__setattr__(self, each.name, tuple(_number(each.name, one, float) for one in given))
        for low, high in (("min_ref", "max_ref"), ("min_drift", "max_drift")):
            if getattr(self, low) > getattr(self, high):
                raise InvalidFieldError(f"constants.{low}", f"must be at most {high}")


def _number(name: str, value: object, kind: type) -> float:
    """Return a constant as a number of its kind, within its bounds."""
    low, high = BOUNDS[name]
    kinds = int if kind is int else int | float
    if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
        what = "a whole number" if kind is int else "a number"
        raise InvalidFieldError(f"constants.{name}", f"must be {what}, {low:g} to {high:g}, is {value!r}")
    number: float = kind(value)
    return number


def rates_of(constants: DriftConstants) -> npt.NDArray[np.float64]:
    """Return how fast each average follows, a tick, (SCALES,): evenly spread in the logarithm."""
    fast, slow = constants.time_constants
    rates: npt.NDArray[np.float64] = 1 - np.exp(
        -1 / (fast * (slow / fast) ** (np.arange(SCALES) / (SCALES - 1)))
    )
    return rates
