"""Checks of the arguments of meta mode. Each raises `InvalidArgumentError` that names the argument."""

from __future__ import annotations

from typing import Any

from mlrs.values.checks import checked, number, real, wrong
from mlrs.values.meta_types import Meta

MAX_ALIGNMENT = 1e30
"""The largest alignment that the contract takes."""


def meta(value: object) -> Meta | None:
    """Return a checked meta mode; `None`: the run is in none."""
    if value is None or value is False:
        return None
    if value is True:
        return Meta()
    if not isinstance(value, Meta):
        raise wrong("meta", "must be True, or a Meta that says more", value)
    return Meta(**checked(Meta, vars(value), "meta."))


def alignment(value: Any, name: str = "alignment") -> float:
    """Return a checked alignment: finite, and no larger than the contract takes."""
    checked = real(name, value, least=-MAX_ALIGNMENT, most=MAX_ALIGNMENT)
    return checked + 0.0  # of the two zeros the positive one


def validation_loss(value: Any) -> float | None:
    """Return a validation loss as a double, NaN and infinities included; `None`: there is none."""
    return None if value is None else number("validation_loss", value)
