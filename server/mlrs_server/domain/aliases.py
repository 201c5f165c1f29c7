"""The history of an alias, and what a rollback returns to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Cause = Literal["set", "promote", "rollback"]
"""The operation that changed an alias."""
MAX_CHANGES = 100
"""The number of changes that are stored per alias, the newest."""


@dataclass(frozen=True)
class AliasChange:
    """One change of an alias."""

    target: str
    """The new target, without the tenant: a name, or a reference."""
    cause: Cause
    """The operation that made the change."""
    time: float | None
    """Seconds since the epoch, UTC. `None`: before changes were recorded, or as shipped with mlrs."""


Changes = Sequence[AliasChange]
"""The changes of one alias, the oldest first."""


def changed(changes: Changes, change: AliasChange) -> Changes:
    """Return the changes with one more, without the oldest if there are too many."""
    return (*changes, change)[-MAX_CHANGES:]


def target_before(changes: Changes) -> str | None:
    """Return the target that a rollback returns to; `None` if none is stored.

    Targets are a stack: `set` and `promote` push, `rollback` pops. So a second rollback goes further back,
    and a rollback after a `set` returns to the target before that.
    """
    stack: list[str] = []
    for change in changes:
        if change.cause != "rollback":
            stack.append(change.target)
        else:  # its target is the new top, also if the entries below are not stored any more
            stack[-2:] = [change.target]
    return stack[-2] if len(stack) > 1 else None
