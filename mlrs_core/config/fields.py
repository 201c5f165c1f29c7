"""Configs whose fields may be left out: which ones are given, and how one config completes another."""

from __future__ import annotations

from dataclasses import MISSING, replace
from typing import Any, Self


class OptionalFields:
    """Base of frozen dataclasses in which a field that has its default, such as `None`, is not given."""

    def given(self) -> list[str]:
        """Return the names of the fields that are given: those whose value is not the default."""
        kind = type(self)
        return [name for name, value in vars(self).items() if value is not getattr(kind, name, MISSING)]

    def completed_by(self, other: OptionalFields) -> Self:
        """Return this config with the fields that it lacks taken from `other`, those of its parts too.

        Raises:
            InvalidFieldError: each value is in its range, and both together are not.
        """
        has = set(self.given())
        changed: dict[str, Any] = {}
        for name in other.given():
            mine, theirs = getattr(self, name), getattr(other, name)
            if name not in has:
                changed[name] = theirs
            elif isinstance(mine, OptionalFields):
                changed[name] = mine.completed_by(theirs)
        return replace(self, **changed) if changed else self  # type: ignore[type-var]  # a dataclass
