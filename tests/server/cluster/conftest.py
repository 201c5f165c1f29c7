"""Stores that replicas can share, and replicas without a wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlrs_server.cluster.leases import Leases
from mlrs_server.cluster.replica import Replica
from mlrs_server.cluster.sharing import Sharing
from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.models.files import asking
from mlrs_server.runs.watchers import Watchers
from mlrs_server.storage import SqlStore, open_store
from mlrs_server.storage.tables import replicas
from tests.server.support import FailingStore, Harness, harness_of
from tests.support.postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """A database of each engine, empty."""
    if request.param == "sqlite":
        return tmp_path / "shared.sqlite3"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def store(where: Path | str) -> Iterator[SqlStore]:
    """A store over the database."""
    opened = open_store(where)
    yield opened
    opened.close()


@dataclass(frozen=True)
class Member:
    """A replica without a wire."""

    harness: Harness
    replica: Replica
    sharing: Sharing

    @property
    def shards(self) -> set[int]:
        """The shards that it holds."""
        return set(self.sharing.ownership.epochs)

    @property
    def leases(self) -> Leases:
        """The replica's leases."""
        return self.sharing._leases


Join = Callable[[str], AbstractAsyncContextManager[Member]]
"""Adds a replica, by the name that is its address; it reconciles when the test calls for it."""


@pytest.fixture
def join(where: Path | str, model_file: Path) -> Join:
    """Return what adds a replica."""

    @asynccontextmanager
    async def joined(name: str) -> AsyncIterator[Member]:
        with ThreadPoolExecutor(1) as executor:
            opened = open_store(where)
            sharing = Sharing(opened, lease_s=3600.0)
            if opened.engine_name == "sqlite":  # one connection, of one thread
                sharing.ownership._executor = executor
            store = FailingStore(opened)
            catalog = ModelCatalog(asking(store, executor), default=str(model_file))
            watchers = Watchers()
            harness = harness_of(
                store, executor, catalog, watchers, flush_interval_s=3600.0, ownership=sharing.ownership
            )
            try:
                yield Member(harness, await sharing.join(harness.live, watchers, name), sharing)
            finally:
                sharing.close()
                opened.close()

    return joined


def expire(store: SqlStore, member: Member) -> None:
    """Make a replica's lease expired."""
    row = replicas.c.id == member.leases.replica_id
    with store.transaction() as connection:
        connection.execute(replicas.update().where(row).values(lease_until=0.0))
