"""The stores that tests of storage use."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlrs_server.storage import SqlStore, open_store
from tests.server.storage.stored import Opener
from tests.support.postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
def opener(request: pytest.FixtureRequest) -> Opener:
    """Each of the stores."""
    if request.param == "sqlite":
        return open_store
    server: PostgresServer = request.getfixturevalue("postgres")
    urls = defaultdict[Path, str](server.new_database)
    return lambda path: open_store(urls[path])


@pytest.fixture
def store(opener: Opener, tmp_path: Path) -> Iterator[SqlStore]:
    """A store, empty."""
    opened = opener(tmp_path / "store")
    yield opened
    opened.close()
