"""A training on two real processes over gloo, started by `torchrun`, and a real daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.frameworks import framework

framework("transformers")

import mlrs  # noqa: E402 # after the framework that may be missing
from tests.support.daemon import Daemon  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def job(folder: Path, address: str, *step: str) -> list[dict[str, Any]]:
    """Run a job to its end; return what each rank saw."""
    done = subprocess.run(
        [*TORCHRUN, "-m", "tests.client.transformers.ranks_job", address, str(folder), *step],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


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
        first, second = job(tmp_path, daemon.address)
        losses, rates = record(daemon.address)
        resumed, again = job(tmp_path, daemon.address, "12"), record(daemon.address)
        with mlrs.connect(daemon.address, timeout_s=30.0) as advisor:
            trials = advisor.get_search("run").trials
    assert len(trials) > 1
    assert first["used"][-30:] == second["used"][-30:] == rates
    assert losses == pytest.approx(first["losses"][-30:], rel=1e-6)
    assert first["weights"] == second["weights"]
    assert again == (losses, rates)
    assert [one["used"] for one in resumed] == [rates[12:]] * 2
    assert [one["weights"] for one in resumed] == [first["weights"]] * 2
