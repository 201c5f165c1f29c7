"""A daemon with a few runs, and a dashboard that shows it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import mlrs
from tests.support.daemon import Daemon, write_random_model
from tests.support.dashboard import Dashboard
from tests.support.runs import open_run

STEPS = 40
"""The steps of the run `a/done`."""
SHOWN = '<img src=x onerror="alert(1)">\n\x09& text'
"""A note that is text, whatever it looks like."""


@pytest.fixture(scope="package")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with the runs `a/done` (finished), `a/open`, `held` (diverged), and `remembered` of a task."""
    folder = tmp_path_factory.mktemp("daemon")
    model = write_random_model(folder / "tiny.safetensors")
    with Daemon(folder / "data", "--model", str(model)) as running:
        with mlrs.connect(running.address, timeout_s=20) as advisor:
            done = open_run(advisor, "a/done", horizon=STEPS, num_classes=10, optimizer="sgd")
            for step in range(STEPS):
                done.next_lr(step, 2.0 / (1 + step))
            done.finish()
            advisor.update_run("a/done", set_tags={"team": "vision"}, note=SHOWN)
            open_run(advisor, "a/open").next_lr(0, 1.5)
            advisor.get_run("a/open")  # which has it stored, before the next run is
            held = open_run(advisor, "held", min_lr=0.001)
            for step in range(12):
                held.next_lr(step, float("nan"))
            advisor.get_run("held")
            with advisor.run("letters", id="remembered", horizon=10, optimizer="sgd") as run:
                for step in range(10):
                    run.next_lr(step, 1.0 / (1 + step))
                run.finish()
        yield running


@pytest.fixture(scope="package")
def dashboard(daemon: Daemon) -> Iterator[Dashboard]:
    """A dashboard of that daemon."""
    with Dashboard("--connect", daemon.address) as running:
        yield running
