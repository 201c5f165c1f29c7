"""Connections that break in every way a network can, under many runs: no learning rate changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlrs
from tests.support.daemon import Daemon, write_random_model
from tests.support.proxy import KINDS, FaultProxy
from tests.support.reliability import save
from tests.support.runs import open_run
from tests.support.trainings.training import Training, Undisturbed, examine
from tests.support.trainings.workload import loss_of, settings_of

PROCESSES, THREADS = 3, 6
LATE_S = 0.1
"""By how much a call may outlive its deadline."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model."""
    return write_random_model(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Daemon]:
    """A daemon for all tests here: nothing happens to it, only to its connections."""
    with Daemon(tmp_path_factory.mktemp("daemon") / "data", "--model", str(model)) as running:
        yield running


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_is_survived(daemon: Daemon, model: Path, kind: str) -> None:
    """A run that meets one fault in the middle gets the learning rates of an undisturbed one."""
    lrs = []
    with (
        FaultProxy(daemon.address) as proxy,
        mlrs.connect(proxy.open_port(), timeout_s=20) as advisor,
    ):
        run = open_run(advisor, kind, fallback=None, **settings_of(kind))
        for step in range(40):
            if step == 20:
                assert proxy.fault(kind, seconds=0.3) == 1
            lrs.append(run.next_lr(step, loss_of(kind, step)).hex())
        assert proxy.injected == {kind: 1}
        if kind not in {"delay", "throttle"}:
            assert proxy.accepted > 1
    assert tuple(lrs) == Undisturbed(model).lrs(kind)[:40]


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(80, id="some"),
        pytest.param(10_000, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(7200)]),
    ],
)
def test_a_storm_of_faults(tmp_path: Path, daemon: Daemon, model: Path, faults: int) -> None:
    """Whatever happens to connections, LRs are an undisturbed run's, and no call outlives its deadline."""
    began = time.monotonic()
    with FaultProxy(daemon.address) as proxy:
        trainings = [
            Training(f"process-{index}", tmp_path, [proxy.open_port() for _ in range(THREADS)])
            for index in range(PROCESSES)
        ]
        for training in trainings:
            training.start()
        calm = proxy.rage(pause_s=(0.005, 0.06))
        try:
            while proxy.injected.total() < faults:
                time.sleep(0.1)
            calm()
            for training in trainings:
                training.drain()
            found = examine(trainings, Undisturbed(model), daemon.address)
        finally:
            for training in trainings:
                training.__exit__()
    assert found.wrong == []
    assert found.runs >= PROCESSES * THREADS
    assert set(proxy.injected) == set(KINDS)
    if faults > 80:
        assert found.late_of_ours_s <= LATE_S
        save(
            "proxy",
            "pytest -m slow tests/e2e/failures/test_proxy.py",
            began,
            time.monotonic(),
            faults=proxy.injected.total(),
            by_kind=dict(proxy.injected),
            connections=proxy.accepted,
            runs=found.runs,
            steps=found.steps,
            calls_made_again=found.again.total(),
            wrong_learning_rates=0,
            latest_call_after_its_deadline_s=found.late_of_ours_s,
            with_what_the_machine_added_s=found.late_s,
        )
