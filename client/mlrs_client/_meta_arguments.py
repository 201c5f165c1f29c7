"""Checks of what users hand in for meta mode. Each raises `InvalidArgumentError` that names the argument."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, TypeVar

from mlrs_client._meta_types import Meta, MetaOrder, MetaScope
from mlrs_client._values import number, real, whole, wrong

S = TypeVar("S", bound=enum.StrEnum)
MAX_EVERY = 2**53
"""The most steps from one update to the next."""
MAX_ALIGNMENT = 1e30
"""The largest alignment that the contract takes."""
MAX_SHARDS = 65_536
"""The most parts of an alignment."""
_BOUNDS: dict[str, dict[str, float]] = {
    "learning_rate": {"above": 0.0, "most": 1.0},
    "weight_decay": {"least": 0.0, "most": 1.0},
    "max_change": {"above": 0.0, "most": 10.0},
    "clip": {"least": 1.0, "most": 1e6},
    "blow_up": {"least": 1.0, "most": 1e6},
}
"""The numbers of `Meta`, each with its bounds."""


def meta(value: object) -> Meta | None:
    """Return a checked meta mode; `None`: the run is in none."""
    if value is None or value is False:
        return None
    if value is True:
        return Meta()
    if not isinstance(value, Meta):
        raise wrong("meta", "must be True, or a Meta that says more", value)
    numbers: dict[str, Any] = {
        name: real(f"meta.{name}", given, **bounds)
        for name, bounds in _BOUNDS.items()
        if (given := getattr(value, name)) is not None
    }
    return dataclasses.replace(
        value,
        scope=None if value.scope is None else _one_of(MetaScope, "meta.scope", value.scope),
        order=None if value.order is None else _one_of(MetaOrder, "meta.order", value.order),
        every=None if value.every is None else every(value.every, "meta.every"),
        **numbers,
    )


def every(value: object, name: str = "every") -> int:
    """Return a checked number of steps from one update to the next."""
    return whole(name, value, low=1, high=MAX_EVERY)


def alignment(value: Any, name: str = "alignment") -> float:
    """Return a checked alignment: finite, and no larger than the contract takes."""
    checked = real(name, value, least=-MAX_ALIGNMENT, most=MAX_ALIGNMENT)
    return checked + 0.0  # of the two zeros the positive one


def validation_loss(value: Any) -> float | None:
    """Return a validation loss as a double, NaN and infinities included; `None`: there is none."""
    return None if value is None else number("validation_loss", value)


def shards(shard: object, shard_count: object) -> tuple[int, int]:
    """Return which part of an alignment it is, and of how many."""
    count = whole("shard_count", shard_count, low=1, high=MAX_SHARDS)
    return whole("shard", shard, low=0, high=count - 1), count


def _one_of(kind: type[S], name: str, value: object) -> S:
    try:
        return kind(str(value))
    except ValueError:
        raise wrong(name, f"must be one of {', '.join(kind)}", value) from None
