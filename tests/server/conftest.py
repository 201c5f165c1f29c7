"""What most tests of the daemon need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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
