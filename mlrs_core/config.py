"""What the advice of a run depends on, besides its losses and its model's weights."""

from __future__ import annotations

import dataclasses
import enum
import math
from dataclasses import dataclass
from typing import Self

from mlrs_core.errors import InvalidFieldError

MAX_HORIZON = 2**53
"""The largest horizon, in steps: the last integer that a double counts up to without gaps."""


class Optimizer(enum.IntEnum):
    """The update rule that a learning rate is advised for. The numbers are those of the contract."""

    UNSPECIFIED = 0
    SGD = 1
    MOMENTUM = 2
    NESTEROV = 3
    ADAM = 4
    ADAMW = 5
    OTHER = 6


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The config of a run; `None` means not given.

    Raises:
        InvalidFieldError: a value is out of range.
    """

    horizon: int | None = None
    """The total number of steps, 1 to 2**53."""
    num_classes: int | None = None
    """The number of classes C of a classification loss, at least 2."""
    scale: float | None = None
    """The scale gamma; finite and > 0. `None`: the model's scale rule."""
    snapshot: int | None = None
    """The snapshot that a run without a horizon stays on. `None`: the middle one."""
    optimizer: Optimizer = Optimizer.UNSPECIFIED
    """The update rule of the training loop."""
    momentum: float | None = None
    """Its momentum (for Adam, beta 1), in [0, 1)."""
    min_lr: float | None = None
    """No advice is below this; finite and >= 0."""
    max_lr: float | None = None
    """No advice is above this; finite, > 0 and >= `min_lr`."""
    initial_lr: float | None = None
    """The learning rate to start from, for models that take one; finite and > 0. `None`: the usual one."""

    def __post_init__(self) -> None:
        """Check every field."""
        _check_whole("horizon", self.horizon, low=1, high=MAX_HORIZON, unit="steps")
        _check_whole("num_classes", self.num_classes, low=2, high=2**31 - 1, unit="classes")
        _check_whole("snapshot", self.snapshot, low=0, high=2**31 - 1, unit="")
        _check_real("scale", self.scale, above=0.0)
        _check_real("initial_lr", self.initial_lr, above=0.0)
        _check_real("min_lr", self.min_lr, least=0.0)
        _check_real("max_lr", self.max_lr, above=0.0)
        if self.momentum is not None and not 0.0 <= self.momentum < 1.0:
            raise InvalidFieldError("momentum", f"must be in [0, 1), is {self.momentum}")
        if self.min_lr is not None and self.max_lr is not None and self.min_lr > self.max_lr:
            raise InvalidFieldError("min_lr", f"{self.min_lr} is above max_lr, {self.max_lr}")

    def completed_by(self, other: RunConfig) -> Self:
        """Return this config with the fields it lacks taken from `other`."""
        return dataclasses.replace(
            self, **{name: getattr(other, name) for name in other.given() if name not in self.given()}
        )

    def given(self) -> list[str]:
        """Return the names of the fields that have a value."""
        return [
            field.name
            for field in dataclasses.fields(self)
            if getattr(self, field.name) is not None
            and getattr(self, field.name) is not Optimizer.UNSPECIFIED
        ]


def _check_whole(field: str, value: int | None, *, low: int, high: int, unit: str) -> None:
    if value is not None and not low <= value <= high:
        counted = f" {unit}" if unit else ""
        raise InvalidFieldError(field, f"must be {low} to {high}{counted}, is {value}")


def _check_real(
    field: str, value: float | None, *, above: float | None = None, least: float | None = None
) -> None:
    if value is None:
        return
    bound = f"> {above:g}" if above is not None else f">= {least:g}"
    low_enough = value > above if above is not None else value >= (least or 0.0)
    if not (math.isfinite(value) and low_enough):
        raise InvalidFieldError(field, f"must be finite and {bound}, is {value}")
