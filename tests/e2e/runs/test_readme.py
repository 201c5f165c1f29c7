"""The first script of the README, run as a new user would: nothing runs before it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.docs.blocks import ROOT, blocks_of
from tests.support.homes import Home, new_home


@pytest.fixture
def home() -> Iterator[Home]:
    """A user whose daemon does not run yet."""
    with new_home() as home:
        yield home


def test_the_first_script_needs_nothing_else(home: Home) -> None:
    """On a fresh machine it starts a daemon, is advised, and says where to look; again, it is a new run."""
    script = next(block.text for block in blocks_of(ROOT / "README.md") if block.language == "python")
    assert len([line for line in script.splitlines() if line.strip()]) <= 12
    fresh = {"OMP_NUM_THREADS": "1", "NUMBA_CACHE_DIR": str(home.folder / "cache")}
    runs = [home.ran(script + "\nprint(loss.item())", **fresh) for _ in range(2)]
    assert [run.returncode for run in runs] == [0, 0], [run.stderr for run in runs]
    assert all(float(run.stdout) < 30.0 for run in runs)  # 80 before the first step
    ids = [
        re.findall(r"mlrs: run (\S+) at \S+ \(mlrs runs watch \1; mlrs dashboard\)", run.stderr)
        for run in runs
    ]
    assert [len(found) for found in ids] == [1, 1]
    assert ids[0] != ids[1]
    assert "fallback" not in runs[0].stderr + runs[1].stderr  # though much is compiled first
    assert "the first run of its task" in runs[0].stderr
    assert "the first run of its task" not in runs[1].stderr
    for (run_id,) in ids:
        assert "finished" in home.command("runs", "show", run_id).stdout
