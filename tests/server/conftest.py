"""Settings of the property tests, and what most tests of the daemon need."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

from tests.support.daemon import write_random_model

hypothesis.settings.register_profile(
    "mlrs",
    deadline=None,
    derandomize=True,
    database=None,
    # Fixtures here hand out folders, and examples make new names in them.
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("mlrs")


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A small network with random weights."""
    return write_random_model(tmp_path / "small.safetensors")
