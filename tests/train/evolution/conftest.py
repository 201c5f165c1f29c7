"""What the tests of the engines share."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlrs_train.evolution.engines.choice import EngineChoice
from mlrs_train.evolution.engines.engine import JobEngine
from tests.train.evolution.jobs import Meeting


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[JobEngine]:
    """Return the engine of a Ray cluster of two workers, which starts once."""
    if importlib.util.find_spec("ray") is None:
        assert os.environ.get("CI") != "true", "Ray is missing: pip install 'mlrs[ray]'"
        pytest.skip("Ray is missing: pip install 'mlrs[ray]'")
    engine = EngineChoice(engine="ray", workers=2).open()
    yield engine
    engine.close()


@pytest.fixture
def meeting() -> Iterator[Meeting]:
    """Return an address where workers and the test meet."""
    opened = Meeting()
    yield opened
    opened.close()


@pytest.fixture
def logged() -> Callable[[subprocess.Popen[str], Path], None]:
    """Return a function that waits until a training has written a line of its log."""

    def wait(process: subprocess.Popen[str], log: Path) -> None:
        deadline = time.monotonic() + 60
        while not (log.exists() and log.stat().st_size):
            assert process.poll() is None, "the training ended by itself"
            assert time.monotonic() < deadline, "the training did not start"
            time.sleep(0.01)

    return wait
