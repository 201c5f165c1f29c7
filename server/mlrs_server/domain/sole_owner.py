"""The ownership of a daemon that shares its store with no other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import final

from mlrs_server.domain.ownership import Epochs


@final
class SoleOwner:
    """Holds every shard, always."""

    epochs: Epochs = {}  # noqa: RUF012  # nothing changes it
    """Empty: no other daemon writes, so nothing read before can be outdated."""

    @asynccontextmanager
    async def acquired(self, shards: Collection[int]) -> AsyncIterator[None]:  # noqa: ARG002  # holds all
        """Do nothing."""
        yield
