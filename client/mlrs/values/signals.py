"""What a training loop may tell of the optimizer's steps, besides its losses."""

from __future__ import annotations

import math
from dataclasses import dataclass


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
