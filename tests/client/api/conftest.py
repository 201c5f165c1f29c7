"""A real daemon for the tests of a module, and advisors of it in both flavours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import done
from tests.support.daemon import Daemon, write_random_model


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon of its own process, with a small model."""
    folder = tmp_path_factory.mktemp("daemon")
    model = write_random_model(folder / "tiny.safetensors")
    with Daemon(folder / "data", "--model", str(model)) as running:
        yield running


@pytest.fixture
async def asking(connect: Any, real: Daemon, tmp_path: Path) -> AsyncIterator[Any]:
    """An advisor of it, of a flavour."""
    advisor = connect(real.address, timeout_s=20.0, unsent_dir=tmp_path)
    yield advisor
    await done(advisor.close())
