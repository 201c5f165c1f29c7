"""The example with Optuna, against a real daemon: trials of a study are runs of one task."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import mlrs
from tests.support.daemon import Daemon

EXAMPLE = Path(__file__).parents[3] / "examples" / "optuna_study.py"


@pytest.mark.slow
def test_trials_learn_from_each_other(tmp_path: Path) -> None:
    """The first trial of a study searches; for each later one, the memory of the task decides."""
    with Daemon(tmp_path / "data") as daemon:
        command = [sys.executable, str(EXAMPLE), "--address", daemon.address, "--task", "study"]
        output = subprocess.run(
            [*command, "--trials", "3", "--steps", "200"], capture_output=True, text=True, check=True
        )
        lines = [json.loads(line) for line in output.stdout.splitlines()]
        with mlrs.connect(daemon.address, timeout_s=30) as advisor:
            memory = advisor.task("study")
    trials = [line for line in lines if "trial" in line]
    assert trials[0]["why"] == "the first run of its task with this kind of optimizer"
    newest_first = [run.metric for run in memory.runs]
    assert newest_first == [trial["accuracy"] for trial in reversed(trials)]
    assert [run.searched for run in memory.runs][-1]
    assert all(run.higher_is_better and run.batch_size == 64 for run in memory.runs)
    decided = [run.recalled.decided for run in memory.runs if run.recalled is not None]
    assert decided[-1] is False
    assert decided[-2] is True
