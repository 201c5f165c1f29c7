"""What most tests of the daemon need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mlrs_core.config import RunConfig
from mlrs_server import daemon
from tests.server.meta.support import AFTER, META
from tests.server.models.catalogs import Catalogs
from tests.server.support import FailingStore
from tests.support.daemon import write_random_model
from tests.support.postgres import PostgresServer, postgres_or_skip


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server, for all tests that leave it as it is."""
    server = postgres_or_skip()
    yield server
    server.remove()


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A small network with random weights."""
    return write_random_model(tmp_path / "small.safetensors")


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> list[FailingStore]:
    """Have daemons of this process use stores that can be made to fail; return those."""
    opened: list[FailingStore] = []
    real = daemon.open_store

    def failing(where: Any) -> Any:
        opened.append(FailingStore(real(where)))
        return opened[-1]

    monkeypatch.setattr(daemon, "open_store", failing)
    return opened


@pytest.fixture(params=["paper", "drift"])
def model(request: pytest.FixtureRequest, model_file: Path) -> Path | None:
    """A small network of the paper's architecture, and the model that is shipped."""
    return model_file if request.param == "paper" else None


@pytest.fixture(params=[META, AFTER], ids=["before", "after"])
def config(request: pytest.FixtureRequest) -> RunConfig:
    """Meta mode in the paper's order, and in the other."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=["sqlite", "postgresql"])
def catalogs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalogs]:
    """Opens catalogues on a store of each engine."""
    where: Path | str = tmp_path / "shared.sqlite3"
    if request.param == "postgresql":
        where = request.getfixturevalue("postgres").new_database()
    with ExitStack() as opened:
        yield Catalogs(where, opened)
