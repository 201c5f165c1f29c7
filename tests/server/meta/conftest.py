"""What tests of meta mode in the daemon are held for."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlrs_core.config import RunConfig
from tests.server.meta.support import AFTER, META


@pytest.fixture(params=["paper", "drift"])
def model(request: pytest.FixtureRequest, model_file: Path) -> Path | None:
    """A small network of the paper's architecture, and the model that is shipped."""
    return model_file if request.param == "paper" else None


@pytest.fixture(params=[META, AFTER], ids=["before", "after"])
def config(request: pytest.FixtureRequest) -> RunConfig:
    """The paper's order, and the other."""
    return request.param  # type: ignore[no-any-return]
