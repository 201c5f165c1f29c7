"""Half an hour of 500 runs that come and go, over connections that break, under a daemon that is killed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.daemon import Daemon, write_random_model
from tests.support.ports import steady_port
from tests.support.process import MIB, open_files, resident_bytes
from tests.support.proxy import FaultProxy
from tests.support.reliability import save
from tests.support.trainings.training import Training, Undisturbed, examine

DURATION_S = float(os.environ.get("MLRS_SOAK_S", "1800"))
LOOPS, PORTS = 500, 10
PAUSE_S = 2.0
"""A step of a run."""
KILL_AT = (0.1, 0.2, 0.3)
"""When the daemon is killed, as parts of the duration; what it needs is measured after the last of them."""
WARM_AT = 0.5
GROWTH = 16 * MIB
"""By how much the daemon's memory may differ between the beginning and the end of what is measured."""


@pytest.mark.slow
@pytest.mark.timeout(int(DURATION_S * 2 + 600))
def test_a_long_time_changes_nothing(tmp_path: Path) -> None:
    """After a long time under fire the daemon has no more memory and files than before, and made no error."""
    began = time.monotonic()
    model = write_random_model(tmp_path / "model.safetensors")
    arguments = ("--model", str(model), "--log-level", "warning", "--idle-after-s", "20")
    listen = f"127.0.0.1:{steady_port()}"
    with (
        Daemon(tmp_path / "data", *arguments, listen=listen) as daemon,
        FaultProxy(daemon.address) as proxy,
    ):
        addresses = [proxy.open_port() for _ in range(PORTS)]
        training = Training("crowd", tmp_path, addresses, timeout_s=5.0, pause_s=PAUSE_S, loops=LOOPS)
        with training:
            calm = proxy.rage(pause_s=(0.1, 1.0))
            samples, kills = _watch(daemon, began)
            calm()
            training.drain(600)
            found = examine([training], Undisturbed(model), daemon.address)
    assert found.wrong == []
    measured = np.array([sample for sample in samples if sample[0] >= WARM_AT * DURATION_S])
    assert len(measured) > 10
    seconds, memory, files = measured.T
    quarter = max(len(measured) // 4, 1)
    grown = np.median(memory[-quarter:]) - np.median(memory[:quarter])
    more_files = np.median(files[-quarter:]) - np.median(files[:quarter])
    slope = np.polyfit(seconds / 3600, memory / MIB, 1)[0]
    save(
        "soak",
        f"MLRS_SOAK_S={DURATION_S:g} pytest -m slow tests/e2e/failures/test_soak.py",
        began,
        time.monotonic(),
        runs_at_once=LOOPS,
        runs=found.runs,
        steps=found.steps,
        faults=proxy.injected.total(),
        kills_of_the_daemon=kills,
        calls_made_again=found.again.total(),
        errors=0,
        memory_mib_per_hour=round(float(slope), 2),
        memory_growth_mib=round(float(grown) / MIB, 2),
        file_growth=float(more_files),
        seconds_mib_files=[
            [round(s), round(r / MIB, 1), int(f)] for s, r, f in samples[:: len(samples) // 90 + 1]
        ],
    )
    assert abs(grown) < GROWTH
    assert more_files <= 3


def _watch(daemon: Daemon, began: float) -> tuple[list[tuple[float, float, float]], int]:
    """Kill the daemon now and then; return samples of seconds, memory and files, and the number of kills."""
    samples = []
    kills = 0
    while (now := time.monotonic() - began) < DURATION_S:
        if kills < len(KILL_AT) and now >= KILL_AT[kills] * DURATION_S:
            daemon.kill()
            daemon.start()
            kills += 1
        samples.append((now, float(resident_bytes(daemon.pid)), float(open_files(daemon.pid))))
        time.sleep(DURATION_S / 600)
    return samples, kills
