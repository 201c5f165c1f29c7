"""A user of their own, for the tests of the daemon that is started on demand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.homes import Home, new_home


@pytest.fixture
def home() -> Iterator[Home]:
    """A user whose daemon does not run yet."""
    with new_home() as home:
        yield home
