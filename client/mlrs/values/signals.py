"""What a training loop may tell besides its losses: signals of optimizer steps, and validation losses."""

from __future__ import annotations

import math
import struct
from dataclasses import astuple, dataclass, fields
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """Measures of one step of an optimizer, sent with the observation after it.

    u is the update that the optimizer made at that step, w the weights after it, and g the gradients as the
    optimizer saw them: unscaled, reduced over ranks and clipped. Sums are over all parameters, or over a
    fixed sample of them. NaN: not known. The daemon forms ratios and averages of these numbers.
    """

    update_norm2: float = math.nan
    """The sum of squares of u."""
    param_norm2: float = math.nan
    """The sum of squares of w."""
    grad_norm2: float = math.nan
    """The sum of squares of g."""
    grad_dot_update: float = math.nan
    """The inner product of g and u; below 0 where the update goes downhill."""
    grad_dot_previous_update: float = math.nan
    """The inner product of g and the update of the step before."""
    log_relative_update: float = math.nan
    """ln(norm of u / norm of w), the mean over tensors of two and more dimensions."""


SIGNAL_NAMES = tuple(field.name for field in fields(Signals))
"""The names of the signals, in order."""


class Validation(NamedTuple):
    """A validation loss, which travels with the first observation after it was told."""

    step: int
    """The step that was validated."""
    loss: float
    """The loss; any value."""


@dataclass(frozen=True, kw_only=True)
class SignalRecord:
    """Signals in a run's record."""

    step: int
    """The step of the observation that they came with; they are of the step before."""
    signals: Signals
    """The signals, as they were sent."""


@dataclass(frozen=True, kw_only=True)
class ValidationRecord:
    """A validation loss in a run's record."""

    step: int
    """The step that was validated."""
    loss: float
    """The loss, as it was sent."""
    observed_step: int
    """The step of the observation that it came with."""


def repeats(sent: Signals | None, again: Signals | None) -> bool:
    """Return whether signals that come again are those that were sent, to the bit, as far as they come."""
    return again is None or all(
        math.isnan(now) or _same_bits(before, now)
        for before, now in zip(_numbers(sent), _numbers(again), strict=True)
    )


def same_validation(one: Validation | None, other: Validation | None) -> bool:
    """Return whether validation losses are the same to the bit, where NaNs are equal."""
    if one is None or other is None:
        return one is other
    return one.step == other.step and _same_bits(one.loss, other.loss)


def _numbers(signals: Signals | None) -> tuple[float, ...]:
    return astuple(Signals() if signals is None else signals)


def _same_bits(one: float, other: float) -> bool:
    return struct.pack("d", one) == struct.pack("d", other) or (math.isnan(one) and math.isnan(other))
