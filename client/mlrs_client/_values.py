"""Checks of single values that users hand in: what `_arguments` and its neighbours are made of."""

from __future__ import annotations

import math
import operator
from typing import Any

from mlrs_client._exceptions import InvalidArgumentError

MAX_NAME = 4096
"""The longest address, prefix, or model reference, in characters."""
MAX_COUNT = 2**31 - 1
"""The largest number of classes, and of a snapshot."""


def string(name: str, value: object) -> str:
    """Return a string of 1 to `MAX_NAME` characters."""
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME:
        raise wrong(name, f"must be a string of 1 to {MAX_NAME} characters", value)
    return value


def whole(name: str, value: Any, *, low: int, high: int = MAX_COUNT) -> int:
    """Return an integer; NumPy's are welcome, booleans are not."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise wrong(name, "must be an int", value)
    number = operator.index(value)
    if not low <= number <= high:
        raise wrong(name, f"must be {low} to {high}", value)
    return number


def number(name: str, value: Any) -> float:
    """Return any real number as a double, also NaN and infinities; strings and booleans are none.

    An array, or a tensor, of one number is read with its `item`: `float` refuses some of these, and warns of
    a tensor that requires a gradient.
    """
    if type(value) is float:
        return value
    try:
        plain = value.item() if callable(getattr(value, "item", None)) else value
        if hasattr(plain, "__float__") and not isinstance(plain, bool):
            return float(plain)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise wrong(name, f"cannot be read as one number: {error}", value) from error
    raise wrong(name, "must be a real number", value)


def real(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> float:
    """Return a finite real number within bounds; strings and booleans are none."""
    checked = number(name, value)
    if math.isfinite(checked) and above < checked < below and least <= checked <= most:
        return checked
    bounds = [f"> {above:g}"] if above > -math.inf else []
    bounds += [f">= {least:g}"] if least > -math.inf else []
    bounds += [f"< {below:g}"] if below < math.inf else []
    bounds += [f"<= {most:g}"] if most < math.inf else []
    raise wrong(name, f"must be finite and {' and '.join(bounds)}", value)


def wrong(name: str, what: str, value: object) -> InvalidArgumentError:
    """Return the error for an argument that is wrong."""
    return InvalidArgumentError(f"{name} {what}; is {_shown(value)}", field=name)


def _shown(value: object) -> str:
    text = f"{type(value).__name__} {value!r}"
    return text if len(text) <= 100 else f"{text[:97]}..."
