"""What an alias has pointed at, and what it goes back to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Cause = Literal["set", "promote", "rollback"]
"""Why an alias was pointed somewhere."""
MAX_CHANGES = 100
"""So many changes of an alias are kept, the newest."""


@dataclass(frozen=True)
class AliasChange:
    """An alias was pointed somewhere."""

    target: str
    """Where, in its tenant's words: a name, or a reference."""
    cause: Cause
    """Why."""
    time: float | None
    """When, in seconds since the epoch, UTC. `None`: before changes were kept, or as mlrs comes."""


Changes = Sequence[AliasChange]
"""What one alias has pointed at, the oldest first."""


def changed(changes: Changes, change: AliasChange) -> Changes:
    """Return changes with one more, without the oldest if they were too many."""
    return (*changes, change)[-MAX_CHANGES:]


def target_before(changes: Changes) -> str | None:
    """Return what an alias goes back to; `None`: nothing that is kept.

    Targets are a stack: `set` and `promote` put one on top, `rollback` takes one off. So of two rollbacks the
    second goes further back, and one after a `set` goes to what was there before that.
    """
    stack: list[str] = []
    for change in changes:
        if change.cause != "rollback":
            stack.append(change.target)
        else:  # the change says what is on top then, also where what lay below is kept no longer
            stack[-2:] = [change.target]
    return stack[-2] if len(stack) > 1 else None
