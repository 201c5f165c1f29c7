"""The protocol by which calls acquire the shards of the runs that they change."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

Epochs = Mapping[int, int]
"""The epochs of the held shards, by shard. Never modified; replaced as a whole."""


class Ownership(Protocol):
    """The shards that this daemon holds. Used from one event loop."""

    @property
    def epochs(self) -> Epochs:
        """The shards held now, with their epochs."""
        ...

    def acquired(self, shards: Collection[int]) -> AbstractAsyncContextManager[None]:
        """Hold shards for the length of the block, in which a call changes runs of theirs; claim free ones.

        What was read of their runs before the block is current if their `epochs` have not changed since.

        Raises:
            AdvisorError: another replica holds one of them, or should hold it (`Reason.NOT_OWNER`, with its
                address), or the database cannot be asked.
        """
        ...
