"""Run lifecycles over the wire against a plain dictionary, with crashes in between."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from mlrs_core.models.checkpoint import read_model
from tests.e2e.failures.lifecycles import Lifecycles
from tests.support.daemon import Daemon, write_random_model
from tests.support.ports import steady_port
from tests.support.reliability import save


@pytest.mark.parametrize(
    ("examples", "steps"),
    [
        pytest.param(4, 40, id="some"),
        pytest.param(130, 60, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_a_daemon_is_a_dictionary(tmp_path: Path, examples: int, steps: int) -> None:
    """Whatever is done to runs, and however it crashes, the daemon says what a dictionary would."""
    began = time.monotonic()
    model = write_random_model(tmp_path / "model.safetensors")
    policy = read_model(model)[0].policy()
    numbers = itertools.count()
    Lifecycles.steps = Lifecycles.restarts = 0
    listen = f"127.0.0.1:{steady_port()}"
    with Daemon(tmp_path / "data", "--model", str(model), listen=listen) as daemon:
        run_state_machine_as_test(
            lambda: Lifecycles(daemon, policy, f"{next(numbers)}/"),
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                suppress_health_check=list(HealthCheck),
                print_blob=False,
            ),
        )
    assert Lifecycles.restarts > 0
    if examples > 10:
        assert Lifecycles.steps >= 5_000
        save(
            "lifecycles",
            "pytest -m slow tests/e2e/failures/test_lifecycles.py",
            began,
            time.monotonic(),
            steps=Lifecycles.steps,
            restarts=Lifecycles.restarts,
            divergences=0,
        )
