"""Values of the client as text and as JSON."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from typing import Any


def plain(value: Any) -> Any:
    """Return a value as JSON has it; a non-finite number as a string."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return [plain(inner) for inner in value]
    return value if isinstance(value, (int, float, str, type(None))) else str(value)


def or_dash(value: float | None, form: str) -> str:
    """Return a number as text, or a dash where there is none yet."""
    return "-" if value is None else format(value, form)


def ago(time: dt.datetime) -> str:
    """Return how long ago a time was, in its largest unit."""
    seconds = max(0.0, (dt.datetime.now(dt.UTC) - time).total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
