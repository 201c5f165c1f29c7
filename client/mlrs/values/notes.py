"""Tags and notes of runs, and checks of those that users give."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias, get_args

from mlrs.values.checks import one_of, wrong

Order: TypeAlias = Literal["id", "recent", "created"]
"""The orders of lists of runs: by id, by the newest stored observation, or by creation; both with the newest
first."""
MAX_TAGS = 32
"""The most tags of a run."""
MAX_VALUE = 256
"""The most characters of a tag's value."""
MAX_NOTE = 4096
"""The most characters of a note."""
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-/]{0,63}")
"""The format of a tag's name."""


def tags(name: str, value: object) -> dict[str, str]:
    """Return checked tags, by name; `None`: none."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise wrong(name, "must be a mapping of names to values", value)
    if len(value) > MAX_TAGS:
        raise wrong(name, f"must be at most {MAX_TAGS}", value)
    for key, text in value.items():
        _tag(name, key)
        if not isinstance(text, str) or len(text) > MAX_VALUE or _controls(text, ""):
            problem = f"must be a string of at most {MAX_VALUE} characters without control characters"
            raise wrong(f"{name}[{key!r}]", problem, text)
    return dict(value)


def tag_names(name: str, value: object) -> tuple[str, ...]:
    """Return checked names of tags."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise wrong(name, "must be a list of names", value)
    return tuple(_tag(name, one) for one in value)


def note(value: object) -> str:
    """Return a checked note."""
    if not isinstance(value, str) or len(value) > MAX_NOTE or _controls(value, "\n\r\t"):
        raise wrong(
            "note",
            f"must be a string of at most {MAX_NOTE} characters, without control characters other than line "
            "breaks and tabs",
            value,
        )
    return value


def order(value: object) -> Order:
    """Return a checked order of lists of runs."""
    checked: Order = one_of("order", value, get_args(Order))
    return checked


def _tag(name: str, value: object) -> str:
    if not isinstance(value, str) or not TAG.fullmatch(value):
        raise wrong(
            name,
            "must name tags with 1 to 64 letters, digits and any of ._-/, beginning with a letter or digit",
            value,
        )
    return value


def _controls(text: str, allowed: str) -> bool:
    return any(unicodedata.category(one) in ("Cc", "Cs") and one not in allowed for one in text)
