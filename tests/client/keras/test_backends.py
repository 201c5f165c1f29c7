"""The tests of this folder hold on the other backend, too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.frameworks import framework

keras = framework("keras")


@pytest.mark.timeout(600)
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="this is the other backend")
def test_torch() -> None:
    """With PyTorch as the backend, which is chosen for a whole process, all other tests pass."""
    folder = Path(__file__).parent
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "--deselect", __file__, folder],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        cwd=folder.parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=590,
    )
    assert ran.returncode == 0, ran.stdout[-4000:]
