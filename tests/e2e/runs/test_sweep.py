"""Sweeps against a real daemon: what each run gets, whatever happens to the daemon."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mlrs
from tests.support.daemon import Daemon
from tests.support.proxy import FaultProxy

RUNS, STEPS = 40, 60
LOSSES = np.abs(np.random.default_rng(5).normal(2.0, 0.5, (STEPS, RUNS))) + 0.05
RATES = 10 ** np.linspace(-3, 0, RUNS)
MEMBERS = 6000
"""Of a large sweep, of which the answers of a step fit into a connection that nobody reads."""
DOWN = 0
"""A seed by which a connection that is half open swallows what the daemon sends."""
EXAMPLE = Path(__file__).parents[3] / "examples" / "sweep.py"


def alone(advisor: mlrs.Advisor, index: int, losses: np.ndarray) -> list[float]:
    """Return the learning rates of one run of the sweep, by itself."""
    with advisor.run(
        "task",
        id=f"alone/{index}-{len(losses)}",
        horizon=STEPS,
        initial_lr=float(RATES[index]),
    ) as run:
        return [run.next_lr(step, loss) for step, loss in enumerate(losses)]


@pytest.mark.parametrize("event", [pytest.param("nothing", marks=pytest.mark.slow), "kill", "idle"])
def test_a_sweep_is_its_runs(tmp_path: Path, event: str) -> None:
    """Each run gets, bit for bit, what it gets alone: also if the daemon is killed, or drops it as idle."""
    arguments = ["--idle-after-s", "0.3"] if event == "idle" else []
    with (
        Daemon(tmp_path / "data", *arguments) as daemon,
        mlrs.connect(daemon.address, timeout_s=30) as advisor,
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


def test_answers_lost_on_the_way_come_again_in_time(tmp_path: Path) -> None:
    """A large sweep whose connection breaks after its steps were answered gets them again: no fallback.

    It gets them in the time that opening the sweep took three times over.
    """
    ids = [f"sweep/{index}" for index in range(MEMBERS)]
    losses = np.abs(np.random.default_rng(6).normal(2.0, 0.5, (5, MEMBERS))) + 0.05
    rates = np.resize(RATES, MEMBERS)
    with (
        Daemon(tmp_path / "data") as daemon,
        FaultProxy(daemon.address, seed=DOWN) as proxy,
        mlrs.connect(daemon.address, timeout_s=60) as direct,
        mlrs.connect(proxy.open_port(), timeout_s=60) as advisor,
    ):
        began = time.monotonic()
        with advisor.sweep(ids, horizon=STEPS, initial_lr=rates) as sweep:
            opening_s = time.monotonic() - began
            lrs = [sweep.next_lrs(step, losses[step]) for step in range(3)]
            assert proxy.fault("half_open", seconds=5.0) == 1
            pending = [sweep.observe(step, losses[step]) for step in (3, 4)]
            while direct.get_run(ids[-1]).next_step < 5:
                assert proxy.accepted == 1, "it broke before the steps were answered"
                time.sleep(0.02)
            while proxy.accepted == 1:
                time.sleep(0.02)
            lrs += [one.lrs(timeout_s=3 * opening_s) for one in pending]
            assert sweep.fallback_steps == 0
        for index in (0, 1, MEMBERS // 2, MEMBERS - 1):
            with direct.run(f"alone/{index}", horizon=STEPS, initial_lr=float(rates[index])) as run:
                alone = [run.next_lr(step, loss) for step, loss in enumerate(losses[:, index])]
            assert np.array(lrs)[:, index].tolist() == alone


@pytest.mark.slow
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
