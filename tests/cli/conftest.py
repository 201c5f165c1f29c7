"""A daemon with three runs, for the commands that look at one."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

import mlrs
from tests.support.daemon import Daemon, write_random_model
from tests.support.runs import open_run


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with the runs `a/one` (finished), `a/two` and `b` (diverged)."""
    folder = tmp_path_factory.mktemp("daemon")
    model = write_random_model(folder / "tiny.safetensors")
    with Daemon(folder / "data", "--model", str(model)) as running:
        with mlrs.connect(running.address, timeout_s=20) as advisor:
            one = open_run(advisor, "a/one", horizon=6, num_classes=10)
            for step in range(6):
                one.next_lr(step, 2.0 / (1 + step))
            one.finish()
            two = open_run(advisor, "a/two")
            two.next_lr(0, 1.5)
            while advisor.get_run("a/two").durable_step < 0:  # which has it stored, before the next run is
                time.sleep(0.01)
            bad = open_run(advisor, "b", min_lr=0.001)
            for step in range(12):
                bad.next_lr(step, float("nan"))
        yield running
