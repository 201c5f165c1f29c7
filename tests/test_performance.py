"""The scripts of `make performance`, each as a quick try."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
MEASURED = re.search(r"^MEASURED := (.*?)\n\n", MAKEFILE, re.DOTALL | re.MULTILINE)
assert MEASURED is not None
SCRIPTS = MEASURED[1].replace("\\\n", " ").split()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_measures_prints_and_saves(tmp_path: Path, script: str) -> None:
    """Each script runs to its end, and saves figures with its command and its machine."""
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", f"performance.{script}", "--quick", "--json", str(file)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    saved = json.loads(file.read_text(encoding="utf-8"))
    assert saved["command"] == f"python -m performance.{script} --quick"
    assert saved["figures"]
    assert saved["machine"]
