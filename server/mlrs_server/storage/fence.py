"""Fencing: each transaction that writes checks who owns the runs, so that a former owner writes nothing."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import sqlalchemy as sa


class Fence(Protocol):
    """Permits a transaction to write, or not."""

    def check(self, connection: sa.Connection, shards: Collection[int]) -> None:
        """Check that runs of these shards may be written in this transaction, before it writes any.

        Raises:
            AdvisorError: they may not be written; nothing is written.
        """
        ...


class NoFence:
    """Permits all writes, for a store that only one daemon uses."""

    def check(self, connection: sa.Connection, shards: Collection[int]) -> None:
        """Do nothing."""
