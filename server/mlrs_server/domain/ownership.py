"""What the daemon asks of whoever knows which runs are its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

Epochs = Mapping[int, int]
"""The epochs of the shards that are held, by shard. Never changed in place."""


class Ownership(Protocol):
    """Knows which shards are this daemon's. Used from one event loop."""

    @property
    def epochs(self) -> Epochs:
        """The shards that are held, now."""
        ...

    def using(self, shards: Collection[int]) -> AbstractAsyncContextManager[None]:
        """Keep shards from being given away while a call changes runs of theirs; claim those that are free.

        What was read of their runs before is good if `epochs` has the same of them after as before.

        Raises:
            AdvisorError: another replica has one of them, or is to have it (`Reason.NOT_OWNER`, with its
                address), or the database cannot be asked.
        """
        ...
