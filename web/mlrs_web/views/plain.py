"""Any value of the client as plain JSON."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

FIGURES = 9
"""Significant digits of numbers that pictures are drawn from; a third of the bytes of exact ones."""


def encoded(value: object) -> bytes:
    """Return a plain value as JSON."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8",
        "replace",  # a lone surrogate is no text
    )


def plain(value: Any) -> Any:
    """Return a value of the client as plain JSON; a dataclass as an object with its fields."""
    for kind, convert in SCALARS:
        if isinstance(value, kind):
            return convert(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    return [plain(each) for each in value]


def number(value: float | None) -> float | None:
    """Return a number; `None` for one that is not finite."""
    return value if value is not None and math.isfinite(value) else None


SCALARS: list[tuple[type | tuple[type, ...], Callable[[Any], Any]]] = [
    ((bool, int, type(None)), lambda value: value),
    (float, number),
    (enum.Enum, lambda value: value.value),  # before `str`, which some of them are
    (str, lambda value: value),
    (dt.datetime, dt.datetime.timestamp),
    (dt.timedelta, dt.timedelta.total_seconds),
]
"""How values without parts are converted, by type."""


def given(value: Any) -> Any:
    """Return a value as `plain` does, without the fields that are `None` or empty."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: given(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {name: each for name, each in fields.items() if each not in (None, "", [], {})}
    return plain(value)


def figures(values: Iterable[float]) -> list[float | None]:
    """Return numbers to draw, rounded to `FIGURES` digits; `None` for those that are not finite."""
    return [float(f"{value:.{FIGURES}g}") if math.isfinite(value) else None for value in values]
