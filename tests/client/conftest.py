"""Fixtures: a daemon of this process and an advisor of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import mlrs_client
from tests.client.fake_daemon import FakeDaemon


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    """A daemon that lives as long as the test."""
    daemon = FakeDaemon()
    yield daemon
    daemon.stop()


@pytest.fixture
def advisor(daemon: FakeDaemon) -> Iterator[mlrs_client.Advisor]:
    """An advisor of it, with a deadline that slow machines meet."""
    with mlrs_client.connect(daemon.target, timeout_s=10.0) as advisor:
        yield advisor
