"""The ownership of a daemon that has its store to itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import final

from mlrs_server.domain.ownership import Epochs


@final
class SoleOwner:
    """Every shard is this daemon's."""

    epochs: Epochs = {}  # noqa: RUF012  # nothing changes it
    """Empty: nobody else could have written in between."""

    @asynccontextmanager
    async def using(self, shards: Collection[int]) -> AsyncIterator[None]:  # noqa: ARG002  # all are its own
        """Do nothing."""
        yield
