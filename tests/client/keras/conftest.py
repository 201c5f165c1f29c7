"""A real daemon for the tests of the adapter for Keras, whose backend is JAX unless another is chosen."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import mlrs
from tests.support.daemon import Daemon

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")


@pytest.fixture(scope="session")
def real_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon for all tests of the folder."""
    with Daemon(tmp_path_factory.mktemp("daemon") / "data") as daemon:
        yield daemon


@pytest.fixture
def advisor(real_daemon: Daemon) -> Iterator[mlrs.Advisor]:
    """An advisor of it."""
    with mlrs.connect(real_daemon.address, timeout_s=30.0) as advisor:
        yield advisor
