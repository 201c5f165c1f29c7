"""The logic of the dashboard's pages that needs no browser, run by Node's own test runner."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mlrs_web.routes.pages import STATIC

TESTS = sorted((Path(__file__).parent / "front").glob("*.test.js"))
MAIN = STATIC / "main.js"
IMPORT = re.compile(r'^(?:import|export) [^;]*?"(\.{1,2}/[^"]+)";$', re.MULTILINE)
PRELOADED = re.compile(r'<link rel="modulepreload" href="/static/([^"]+)">')


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


def test_the_modules_of_the_frame_are_loaded_at_once() -> None:
    """The page names the modules that its main module imports, and no other: none waits for another."""
    imported, left = set[Path](), [MAIN]
    while left:
        module = left.pop()
        found = {(module.parent / name).resolve() for name in IMPORT.findall(module.read_text("utf-8"))}
        left += found - imported
        imported |= found
    named = PRELOADED.findall((STATIC / "index.html").read_text("utf-8"))
    assert named == sorted(str(module.relative_to(STATIC)) for module in imported)
