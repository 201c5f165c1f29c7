"""A fit with DDP: two real processes over gloo, and a real daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.frameworks import framework

framework("lightning")

import mlrs  # noqa: E402 # after the framework that may be missing
from tests.support.daemon import Daemon  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def job(folder: Path, *arguments: str) -> None:
    """Run a job to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.client.lightning.ranks_job", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"},
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert folder.exists()


def seen(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return what each rank saw."""
    return [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(2)]


def record(address: str) -> tuple[list[float], list[float]]:
    """Return the losses and learning rates of the run."""
    with mlrs.connect(address, timeout_s=30.0) as advisor:
        chunks = list(advisor.watch("run"))
    return (
        [loss for chunk in chunks for loss in chunk.losses],
        [rate for chunk in chunks for rate in chunk.learning_rates],
    )


def test_ranks_share_one_schedule(tmp_path: Path) -> None:
    """Two ranks make the search and the steps of one run, and a job from a checkpoint goes on to the bit."""
    with Daemon(tmp_path / "data") as daemon:
        job(tmp_path, daemon.address, str(tmp_path), "run", "6")
        (first, second), (losses, rates) = seen(tmp_path, "run"), record(daemon.address)
        job(tmp_path, daemon.address, str(tmp_path), "run", "6", str(tmp_path / "run" / "epoch=2.ckpt"))
        resumed, again = seen(tmp_path, "run"), record(daemon.address)
        with mlrs.connect(daemon.address, timeout_s=30.0) as advisor:
            trials = advisor.get_search("run").trials
    assert len(trials) > 1
    assert first["used"][-30:] == second["used"][-30:] == rates
    means = [(a + b) / 2 for a, b in zip(first["losses"][-30:], second["losses"][-30:], strict=True)]
    assert losses == pytest.approx(means, rel=1e-12)
    assert first["losses"][-30:] != second["losses"][-30:]
    assert again == (losses, rates)
    for one, other in zip(resumed, (first, second), strict=True):
        assert one["used"] == other["used"][-15:]
        assert one["weights"] == other["weights"]
