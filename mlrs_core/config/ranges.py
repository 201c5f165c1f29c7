"""Checks of numbers against their ranges. Each raises `InvalidFieldError` that names the field."""

from __future__ import annotations

import math
import sys
from numbers import Integral, Real

from mlrs_core.errors import InvalidFieldError


def check_type(field: str, value: object, kind: type, name: str) -> None:
    """Check that a value is of a type, and no boolean in place of a number; `None` passes.

    Raises:
        InvalidFieldError: it is not; the message calls the type `name`.
    """
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise InvalidFieldError(field, f"must be {name}, is {value!r:.100}")


def check_whole(field: str, value: int | None, *, low: int, high: int, unit: str = "") -> None:
    """Check an integer against [low, high]; `None` passes.

    Raises:
        InvalidFieldError: it is outside, or no integer.
    """
    if value is None:
        return
    if type(value) is not int:  # the common case first: to ask an abstract class takes longer than the rest
        check_type(field, value, Integral, "a whole number")
    if not low <= value <= high:
        counted = f" {unit}" if unit else ""
        raise InvalidFieldError(field, f"must be {low} to {high}{counted}, is {value}")


def check_real(
    field: str,
    value: float | None,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float = math.inf,
) -> None:
    """Check that a number is finite, > `above` or else >= `least`, and <= `most`; `None` passes.

    Raises:
        InvalidFieldError: it is not, or no number.
    """
    if value is None:
        return
    if type(value) is not float:
        check_type(field, value, Real, "a number")
    low_enough = value > above if above is not None else value >= (least or 0.0)
    if not (abs(value) <= sys.float_info.max and low_enough and value <= most):
        bound = f"> {above:g}" if above is not None else f">= {least:g}"
        if most < math.inf:
            bound += f" and <= {most:g}"
        raise InvalidFieldError(field, f"must be finite and {bound}, is {value}")
