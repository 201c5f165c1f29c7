"""A store that cannot be written for a while: training continues, and clients and health checks report it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import mlrs
from mlrs_cli.root import command
from tests.support.daemon import Daemon, write_random_model
from tests.support.mounts import filled, small_disk
from tests.support.runs import open_run


def health(address: str, *arguments: str) -> Result:
    """Run `mlrs health` on a daemon."""
    return CliRunner().invoke(command, ["health", "--address", address, "--timeout-s", "20", *arguments])


def test_a_full_disk_is_told_to_clients_and_probes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """On a full disk the client warns once, health names the store, readiness fails; then all is well."""
    caplog.set_level(logging.WARNING, "mlrs")
    model = write_random_model(tmp_path / "tiny.safetensors")

    def said() -> list[str]:
        return [record.message for record in caplog.records if record.name == "mlrs"]

    with (
        small_disk(tmp_path / "disk", "2m") as disk,
        Daemon(disk / "data", "--model", str(model)) as daemon,
        mlrs.connect(daemon.address, timeout_s=20) as advisor,
    ):
        run = open_run(advisor, "a", horizon=100_000, num_classes=10)
        step = 0

        def train_until(reached: Callable[[], bool]) -> None:
            nonlocal step
            deadline = time.monotonic() + 60
            while not reached():
                assert time.monotonic() < deadline, said()
                run.next_lr(step, 2.0 / (1 + step))
                step += 1
                time.sleep(0.01)

        train_until(lambda: run.durable_step > 20)
        assert health(daemon.address).output == "SERVING\n"
        assert health(daemon.address, "--ready").exit_code == 0
        with filled(disk):
            train_until(lambda: len(said()) > 0)
            some = step + 100
            train_until(lambda: step > some)
            assert len(said()) == 1
            assert "run 'a': the daemon has stored nothing after step" in said()[0]
            named = health(daemon.address)
            assert named.exit_code == 0
            assert "SERVING, but its store cannot be written" in named.output
            ready = health(daemon.address, "--ready")
            assert ready.exit_code == 1
            assert "its store cannot be written" in ready.output
        before = step
        train_until(lambda: run.durable_step > before)
        assert len(said()) == 2
        assert "the daemon stores again" in said()[1]
        assert run.fallback_steps == 0
        assert health(daemon.address, "--ready").output == "SERVING\n"
