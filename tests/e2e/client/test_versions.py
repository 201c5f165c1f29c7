"""The client by itself, against a daemon in a process of its own: what each version of its libraries must do.

`make test-matrix` runs these tests in environments that have the client, NumPy and pytest only, with versions
of protobuf, grpcio and Python from the oldest to the newest; the daemon runs in that for development.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlrs
import mlrs.aio
from mlrs.errors import InvalidArgumentError, RunNotFoundError, StaleStepError
from tests.support.daemon import Daemon

LOSSES = [2.3, 2.2, 2.0, 2.1, 1.9, 1.7, 1.8, 1.5, 1.4, 1.3, 1.4, 1.2]
HALF = len(LOSSES) // 2


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that tests may kill and start again."""
    with Daemon(tmp_path_factory.mktemp("versions") / "data") as daemon:
        yield daemon


@pytest.fixture(scope="module")
def expected(daemon: Daemon) -> list[float]:
    """The learning rates of a run that nothing disturbs."""
    with mlrs.connect(daemon.address, timeout_s=30.0) as advisor, _run(advisor, "expected") as run:
        return [run.next_lr(step, loss) for step, loss in enumerate(LOSSES)]


def _run(advisor: mlrs.Advisor, id_: str) -> mlrs.Run:
    return advisor.run("task", id=id_, horizon=40, num_classes=10, memory=False)


def test_importing_the_client_warns_of_nothing() -> None:
    """The client, with its generated messages, is imported without a warning."""
    command = [sys.executable, "-W", "error", "-c", "import mlrs, mlrs.aio"]
    imported = subprocess.run(command, capture_output=True, text=True, check=False)
    assert imported.returncode == 0, imported.stderr


def test_threads(daemon: Daemon, expected: list[float]) -> None:
    """A run observes without waiting, gets its learning rates, replays them, and is finished."""
    with mlrs.connect(daemon.address, timeout_s=30.0) as advisor, _run(advisor, "threads") as run:
        rates = []
        for step, loss in enumerate(LOSSES):
            pending = run.observe(step, loss)
            rates.append(pending.lr())
        assert rates == expected
        assert run.observe(3, LOSSES[3]).lr() == expected[3]
        assert run.finish().next_step == len(LOSSES)
        assert advisor.get_run("threads").next_step == len(LOSSES)


async def test_asyncio(daemon: Daemon, expected: list[float]) -> None:
    """The asyncio client gets the same learning rates, those of two runs at a time."""
    async with mlrs.aio.connect(daemon.address, timeout_s=30.0) as advisor:

        async def trained(id_: str) -> list[float]:
            async with advisor.run("task", id=id_, horizon=40, num_classes=10, memory=False) as run:
                return [await run.next_lr(step, loss) for step, loss in enumerate(LOSSES)]

        assert await asyncio.gather(trained("aio/0"), trained("aio/1")) == [expected, expected]


def test_a_killed_daemon(daemon: Daemon, expected: list[float]) -> None:
    """A run goes on when its daemon was killed and started again, with the same learning rates."""
    with mlrs.connect(daemon.address, timeout_s=60.0) as advisor, _run(advisor, "killed") as run:
        rates = [run.next_lr(step, LOSSES[step]) for step in range(HALF)]
        daemon.kill()
        daemon.start()
        rates += [run.next_lr(step, LOSSES[step]) for step in range(HALF, len(LOSSES))]
    assert rates == expected


def test_resuming(daemon: Daemon, expected: list[float]) -> None:
    """A second connection goes on from a checkpoint's step, and gets the same learning rates from there."""
    with mlrs.connect(daemon.address, timeout_s=30.0) as advisor, _run(advisor, "resumed") as run:
        for step, loss in enumerate(LOSSES):
            run.next_lr(step, loss)
    with (
        mlrs.connect(daemon.address, timeout_s=30.0) as advisor,
        advisor.run("task", id="resumed", resume_from=HALF, memory=False) as run,
    ):
        rates = [run.next_lr(step, LOSSES[step]) for step in range(HALF, len(LOSSES))]
    assert rates == expected[HALF:]


def test_a_sweep(daemon: Daemon, expected: list[float]) -> None:
    """Each run of a sweep gets what it gets by itself."""
    ids = [f"sweep/{index}" for index in range(3)]
    with (
        mlrs.connect(daemon.address, timeout_s=30.0) as advisor,
        advisor.sweep(ids, horizon=40, num_classes=10) as sweep,
    ):
        rates = [sweep.next_lrs(step, [loss] * 3).tolist() for step, loss in enumerate(LOSSES)]
    assert rates == [[rate] * 3 for rate in expected]


def test_errors(daemon: Daemon, expected: list[float], tmp_path: Path) -> None:
    """What the daemon refuses is an exception of its reason, with the field or the step at fault."""
    with mlrs.connect(daemon.address, timeout_s=30.0, unsent_dir=str(tmp_path)) as advisor:
        with pytest.raises(RunNotFoundError) as missing:
            advisor.get_run("nobody")
        assert missing.value.reason == "RUN_NOT_FOUND"
        with pytest.raises(InvalidArgumentError) as wrong:
            advisor.run("task", id="wrong", policy=mlrs.Schedule("linear"), memory=False).open()
        assert wrong.value.field == "config.horizon"
        run = advisor.run("task", id="expected", on_existing="resume", memory=False)
        with run, pytest.raises(StaleStepError) as stale:
            run.next_lr(0, LOSSES[0] + 1.0)
        assert stale.value.next_step == len(expected)
