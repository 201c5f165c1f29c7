"""The logic of the dashboard's pages that needs no browser, run by Node's own test runner."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = sorted((Path(__file__).parent / "front").glob("*.test.js"))


def test_the_logic_of_the_pages() -> None:
    """Records merge, series are smoothed, numbers and events become words, as the tests in `front/` say."""
    node = shutil.which("node")
    if node is None and os.environ.get("CI") == "true":
        pytest.fail("node is not installed, and CI needs it")
    if node is None:
        pytest.skip("node is not installed")
    tested = subprocess.run(
        [node, "--test", *map(str, TESTS)], capture_output=True, text=True, check=False, timeout=60
    )
    assert TESTS
    assert tested.returncode == 0, tested.stdout
