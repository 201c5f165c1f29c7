"""What most tests of the daemon need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemon import write_random_model


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A small network with random weights."""
    return write_random_model(tmp_path / "small.safetensors")
