"""Tags and notes, which people put on runs: text that influences nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from mlrs_server.errors import SHOWN, AdvisorError, invalid_field

MAX_TAGS = 32
"""The most tags of a run."""
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-/]{0,63}")
"""The format of a tag's name."""
MAX_VALUE = 256
"""The most characters of a tag's value."""
MAX_NOTE = 4096
"""The most characters of a note."""
_BREAKS = frozenset("\n\r\t")
"""The control characters that a note may have."""


@dataclass(frozen=True, kw_only=True)
class NoteChange:
    """A change of a run's tags and note.

    Raises:
        AdvisorError: a tag or the note is malformed, or a tag is both set and removed.
    """

    set_tags: Mapping[str, str] = field(default_factory=dict)
    """The tags to set; other tags stay."""
    remove_tags: Collection[str] = ()
    """The names of tags to remove."""
    note: str | None = None
    """The note; "" is none, and `None` leaves it as it is."""

    def __post_init__(self) -> None:
        """Check the tags and the note."""
        check_tags(self.set_tags, "set_tags")
        for name in self.remove_tags:
            check_tag(name, "remove_tags")
            if name in self.set_tags:
                raise invalid_field("remove_tags", f"tag {name!r} is in set_tags, too; leave it out of one")
        if self.note is not None:
            check_note(self.note)


def check_tags(tags: Mapping[str, str], where: str = "tags") -> Mapping[str, str]:
    """Check tags of the field `where` of a call, and return them.

    Raises:
        AdvisorError: there are too many, or a name or a value is malformed.
    """
    if len(tags) > MAX_TAGS:
        raise too_many_tags(len(tags), where)
    for name, value in tags.items():
        check_tag(name, where)
        if len(value) > MAX_VALUE:
            raise invalid_field(
                where, f"the value of tag {name!r} must have at most {MAX_VALUE} characters, has {len(value)}"
            )
        if any(map(_controls, value)):
            raise invalid_field(
                where, f"the value of tag {name!r} must have no control characters, is {value[:SHOWN]!r}"
            )
    return tags


def check_tag(name: str, where: str) -> None:
    """Check the name of a tag of the field `where` of a call.

    Raises:
        AdvisorError: it is malformed.
    """
    if not TAG.fullmatch(name):
        raise invalid_field(
            where,
            "a tag's name must be 1 to 64 characters: letters, digits and any of ._-/, beginning with a "
            f"letter or digit; is {name[:SHOWN]!r}",
        )


def check_note(note: str) -> str:
    """Check a note, and return it.

    Raises:
        AdvisorError: it is too long, or has control characters other than line breaks and tabs.
    """
    if len(note) > MAX_NOTE:
        raise invalid_field("note", f"must have at most {MAX_NOTE} characters, has {len(note)}")
    if (wrong := next((one for one in note if _controls(one) and one not in _BREAKS), None)) is not None:
        raise invalid_field(
            "note", f"must have no control characters other than line breaks and tabs, has {wrong!r}"
        )
    return note


def too_many_tags(count: int, where: str) -> AdvisorError:
    """Return the error of a call that would give a run too many tags."""
    return invalid_field(
        where, f"a run has at most {MAX_TAGS} tags, this one would have {count}; remove some"
    )


def _controls(character: str) -> bool:
    return unicodedata.category(character) == "Cc"
