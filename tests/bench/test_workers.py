"""Processes of the benchmark: its daemon and its workers, when something goes wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlrs_bench import daemon
from mlrs_bench.cell import Cell, CellKey
from mlrs_bench.errors import DaemonStartError, TrainingError
from mlrs_bench.workers import CellJob, Workers, Workshop
from tests.bench.conftest import TASKS
from tests.bench.processes import children_of, needs_proc, wait_for_end

SERVE = """
import time
from mlrs_bench.daemon import serving

with serving([]) as address:
    print(address.target, flush=True)
    time.sleep(60)
"""
ONLY_HERE = """
import multiprocessing

from tests.bench.tiny_tasks import TASKS

if multiprocessing.parent_process() is not None:
    raise ValueError("no worker likes this file")
"""


def job(task: str, seed: int) -> CellJob:
    """Return a training by L4, which needs no daemon."""
    return CellJob(CellKey(task=task, optimizer="sgd", method="l4", seed=seed), f"{task}-{seed}")


def workshop(cache: Path, task_file: Path) -> Workshop:
    """Return a workshop without a daemon."""
    address = daemon.Address("127.0.0.1:9")
    return Workshop(cache=cache, cifar10=None, task_file=task_file, models={}, daemon=address)


def test_what_was_trained_is_kept_when_another_fails(tmp_path: Path) -> None:
    """A training that fails ends the table, after what was under way beside it was kept."""
    kept: dict[str, Cell] = {}
    jobs, failure = [job("slow", 1), job("nope", 2), job("slow", 3), job("slow", 4)], "'nope'"
    with (
        Workers(workshop(tmp_path, TASKS), 2) as workers,
        pytest.raises(TrainingError, match=f"nope / sgd, l4, seed 2: KeyError: {failure}"),
    ):
        workers.run(jobs, kept.__setitem__)
    assert "slow-1" in kept
    assert "slow-4" not in kept


def test_a_file_that_fails_in_workers_only_is_told(tmp_path: Path) -> None:
    """What a file of tasks raises in a worker is what the command says."""
    file = tmp_path / "mine.py"
    file.write_text(ONLY_HERE, encoding="utf-8")
    with (
        Workers(workshop(tmp_path, file), 1) as workers,
        pytest.raises(TrainingError, match="ValueError: no worker likes this file"),
    ):
        workers.run([job("tiny", 1)], lambda _digest, _cell: None)


def test_a_daemon_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark does not wait forever for a daemon that neither starts nor ends."""
    monkeypatch.setattr(daemon, "TIED_COMMAND", (sys.executable, "-c", "import time; time.sleep(50)"))
    monkeypatch.setattr(daemon, "START_S", 0.2)
    with pytest.raises(DaemonStartError, match=r"it said nothing within 0\.2 s"), daemon.serving([]):
        pass


@needs_proc
def test_the_daemon_ends_with_a_killed_parent() -> None:
    """A process that is killed before it has workers leaves no daemon behind."""
    with subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith("127.0.0.1:")
        children = children_of(parent.pid)
        assert len(children) == 1
        parent.kill()
        wait_for_end(children)
