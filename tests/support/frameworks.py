"""The frameworks whose adapters are tested with the real thing."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

import pytest

PACKAGES = {"sklearn": "scikit-learn"}
"""What modules are installed by, where that has another name."""
REQUIRED = "MLRS_REQUIRED_FRAMEWORKS"
"""The environment variable with the frameworks that must be installed; `make test-adapters` sets it."""


def need(name: str) -> None:
    """Skip the test unless a framework is installed; fail if it is required. Does not import it."""
    if importlib.util.find_spec(name) is None:
        assert name not in os.environ.get(REQUIRED, "").split(), f"{name} is not installed"
        pytest.skip(f"{name} is not installed: pip install {PACKAGES.get(name, name)}")


def framework(name: str, package: str | None = None) -> Any:
    """Return a framework's module; if it is not installed, skip the test module, or fail if it is required.

    Args:
        name: the module to import.
        package: what to install it by, if that has another name.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        wanted = name in os.environ.get(REQUIRED, "").split()
        if wanted or error.name != name.partition(".")[0]:
            raise
        pytest.skip(f"{name} is not installed: pip install {package or name}", allow_module_level=True)
