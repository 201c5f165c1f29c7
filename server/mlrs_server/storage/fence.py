"""Who may write: asked inside each transaction that writes, so that an owner of old writes nothing."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import sqlalchemy as sa


class Fence(Protocol):
    """Lets a transaction write, or not."""

    def check(self, connection: sa.Connection, shards: Collection[int]) -> None:
        """Check that runs of these shards may be written in this transaction, before it writes any.

        Raises:
            AdvisorError: they may not; nothing is written.
        """
        ...


class NoFence:
    """Lets everything be written: the only daemon on a store needs no other."""

    def check(self, connection: sa.Connection, shards: Collection[int]) -> None:
        """Do nothing."""
