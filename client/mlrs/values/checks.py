"""Checks of single values from users, and of dataclasses whose fields name their checks.

Each check raises `InvalidArgumentError`, whose `field` is the name that it was given.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Any, TypeVar

from mlrs.errors import InvalidArgumentError

C = TypeVar("C", bound=StrEnum)
S = TypeVar("S", bound=str)
MAX_NAME = 4096
"""The longest address, prefix, or model reference, in characters."""
MAX_COUNT = 2**31 - 1
"""The largest number of classes, and of a snapshot."""
MAX_STEPS = 2**53
"""The largest horizon and step: the last integer that a double counts up to without gaps."""
MAX_OFFSET = 20.0
"""The largest offset of a learning rate, in octaves."""
MAX_MILESTONES = 64
"""The most milestones of a schedule."""


def option(check: Callable[..., Any], **bounds: Any) -> Any:
    """Return a field of a dataclass that may be left out (`None`), with the check of its value."""
    return dataclasses.field(default=None, metadata={"check": functools.partial(check, **bounds)})


@functools.cache
def checks_of(kind: type) -> Mapping[str, Callable[[str, Any], Any]]:
    """Return the checks of a dataclass, by the names of its fields that are an `option`."""
    fields = dataclasses.fields(kind)
    return {field.name: field.metadata["check"] for field in fields if "check" in field.metadata}


def checked(kind: type, given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return checked values for options of a dataclass; those that are `None` are left out."""
    checks = checks_of(kind)
    return {name: checks[name](prefix + name, value) for name, value in given.items() if value is not None}


def member(name: str, value: object, *, of: type[C]) -> C:
    """Return a member of an enumeration, given as itself or by its value."""
    return one_of(name, value, tuple(of))


def one_of(name: str, value: object, known: Sequence[S]) -> S:
    """Return which of the known words a value is."""
    for word in known:
        if isinstance(value, str) and value == word:
            return word
    raise wrong(name, f"must be one of {', '.join(known)}", value)


def rising(name: str, value: Any) -> tuple[int, ...]:
    """Return 1 to `MAX_MILESTONES` steps that rise."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise wrong(name, "must be a list of steps", value)
    steps = tuple(whole(name, step, low=1, high=MAX_STEPS) for step in value)
    if not 1 <= len(steps) <= MAX_MILESTONES:
        raise wrong(name, f"must hold 1 to {MAX_MILESTONES} steps", value)
    if any(after <= before for before, after in pairwise(steps)):
        raise wrong(name, "must rise", value)
    return steps


def string(name: str, value: object) -> str:
    """Return a string of 1 to `MAX_NAME` characters."""
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME:
        raise wrong(name, f"must be a string of 1 to {MAX_NAME} characters", value)
    return value


def flag(name: str, value: object) -> bool:
    """Return a boolean; numbers are none."""
    if not isinstance(value, bool):
        raise wrong(name, "must be True or False", value)
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
    bounds = ["finite"]
    bounds += [f"> {above:g}"] if above > -math.inf else []
    bounds += [f">= {least:g}"] if least > -math.inf else []
    bounds += [f"< {below:g}"] if below < math.inf else []
    bounds += [f"<= {most:g}"] if most < math.inf else []
    raise wrong(name, f"must be {' and '.join(bounds)}", value)


def wrong(name: str, what: str, value: object) -> InvalidArgumentError:
    """Return the error for an argument that is wrong."""
    return InvalidArgumentError(f"{name} {what}; is {_shown(value)}", field=name)


def _shown(value: object) -> str:
    text = f"{type(value).__name__} {value!r}"
    return text if len(text) <= 100 else f"{text[:97]}..."
