"""`mlrs.run` and `mlrs.connect` without an address."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import mlrs
from tests.client.fake_daemon import FakeDaemon

FORKING = """
import os, signal
import mlrs

options = {"timeout_s": 10.0, "memory": False}
first, second = mlrs.run("task", id="a", **options), mlrs.run("task", id="b", **options)
first.next_lr(0, 1.0)
second.next_lr(0, 1.0)
child = os.fork()
if child == 0:
    signal.alarm(20)
    mlrs.run("task", id="child", **options).next_lr(0, 1.0)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
first.next_lr(1, 1.0)
"""


def test_the_environment_names_the_daemon(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address, `connect` talks to the daemon that `MLRS_TARGET` names."""
    monkeypatch.setenv("MLRS_TARGET", daemon.target)
    with mlrs.connect(timeout_s=10.0) as advisor:
        advisor.run("task", id="one").next_lr(0, 1.0)
    assert "one" in daemon.runs


def test_an_advisor_of_ones_own(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `advisor=`, `mlrs.run` makes a run of that connection, wherever the shared one would go."""
    monkeypatch.setenv("MLRS_TARGET", "127.0.0.1:1")
    with mlrs.connect(daemon.target, timeout_s=10.0) as advisor:
        mlrs.run("task", advisor=advisor, id="own").next_lr(0, 1.0)
    assert "own" in daemon.runs


def test_a_process_shares_one_connection_and_its_forked_child_has_another(daemon: FakeDaemon) -> None:
    """Runs of `mlrs.run` go on in the parent while a forked child opens its own."""
    ran = subprocess.run(  # our own interpreter
        [sys.executable, "-c", FORKING],
        env={**os.environ, "MLRS_TARGET": daemon.target},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert {"a", "b", "child"} <= set(daemon.runs)
