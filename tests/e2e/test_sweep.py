"""Sweeps against a real daemon: what each run gets, whatever happens to the daemon."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mlrs_client
from tests.support.daemon import Daemon

RUNS, STEPS = 40, 60
LOSSES = np.abs(np.random.default_rng(5).normal(2.0, 0.5, (STEPS, RUNS))) + 0.05
RATES = 10 ** np.linspace(-3, 0, RUNS)
EXAMPLE = Path(__file__).parents[2] / "examples" / "sweep.py"


def alone(advisor: mlrs_client.Advisor, index: int, losses: np.ndarray) -> list[float]:
    """Return the learning rates of one run of the sweep, by itself."""
    with advisor.run(
        "task",
        id=f"alone/{index}-{len(losses)}",
        on_existing="resume",
        horizon=STEPS,
        initial_lr=float(RATES[index]),
    ) as run:
        return [run.next_lr(step, loss) for step, loss in enumerate(losses)]


@pytest.mark.parametrize("event", ["nothing", "kill", "idle"])
def test_a_sweep_is_its_runs(tmp_path: Path, event: str) -> None:
    """Each run gets, bit for bit, what it gets alone: also if the daemon is killed, or drops it as idle."""
    arguments = ["--idle-after-s", "0.3"] if event == "idle" else []
    with (
        Daemon(tmp_path / "data", *arguments) as daemon,
        mlrs_client.connect(daemon.address, timeout_s=30) as advisor,
    ):
        ids = [f"sweep/{index}" for index in range(RUNS)]
        with advisor.sweep(ids, horizon=STEPS, initial_lr=RATES) as sweep:
            lrs = []
            for step, losses in enumerate(LOSSES):
                if event == "kill" and step in (20, 41):
                    daemon.kill()
                    daemon.start()
                if event == "idle" and step == 30:
                    while "idle_runs_left_memory" not in daemon.log.read_text(encoding="utf-8"):
                        time.sleep(0.02)
                lrs.append(sweep.next_lrs(step, losses))
            infos = sweep.finish()
        assert [info.id for info in infos] == ids
        assert {info.durable_step for info in infos} == {STEPS - 1}
        for index in (0, 1, RUNS // 2, RUNS - 1):
            assert np.array(lrs)[:, index].tolist() == alone(advisor, index, LOSSES[:, index])


def test_the_example_runs(tmp_path: Path) -> None:
    """The example trains its networks with a daemon of its own, and draws what happened."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--networks", "16", "--steps", "30", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "advice for all 16" in done.stdout
    assert (tmp_path / "sweep.png").stat().st_size > 10_000
