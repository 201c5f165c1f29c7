"""Which daemon `mlrs dashboard` shows, and the dashboard beside `mlrs serve`."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import mlrs
from examples.demo import dashboard_command
from mlrs.local.dashboard import dashboard_url
from mlrs_cli.dashboard.beside import reached
from mlrs_cli.root import command
from tests.support.daemon import Daemon
from tests.support.dashboard import Dashboard
from tests.support.homes import Home, new_home
from tests.support.runs import open_run


@pytest.fixture
def home() -> Iterator[Home]:
    """A user whose daemon does not run yet."""
    with new_home() as home:
        yield home


def train(address: str, run_id: str) -> None:
    """Make a run of one step, which is stored."""
    with mlrs.connect(address, timeout_s=20) as advisor:
        open_run(advisor, run_id, policy="constant").next_lr(0, 1.0)
        assert advisor.get_run(run_id).durable_step == 0


def beside(daemon: Daemon) -> Dashboard:
    """Return the dashboard that a daemon started."""
    assert daemon._process is not None
    assert daemon._process.stdout is not None
    line = daemon._process.stdout.readline()
    assert line.startswith("dashboard: "), daemon.log.read_text(encoding="utf-8")
    dashboard = Dashboard()
    dashboard.url = line.split()[-1]
    return dashboard


def is_served(dashboard: Dashboard) -> bool:
    """Return whether a dashboard answers."""
    try:
        return dashboard.get("/api/session").status == 200
    except ConnectionError:
        return False


def test_a_dashboard_beside_a_daemon_ends_with_it(tmp_path: Path) -> None:
    """`mlrs serve --dashboard` shows the daemon's runs, and ends when the daemon is killed."""
    with Daemon(tmp_path / "data", "--dashboard", "127.0.0.1:0") as daemon:
        dashboard = beside(daemon)
        train(daemon.address, "a")
        assert dashboard.get("/api/run", id="a").json["run"]["id"] == "a"
        daemon.kill()
        until = time.monotonic() + 20.0
        while is_served(dashboard):
            assert time.monotonic() < until
            time.sleep(0.02)


def test_a_dashboard_that_dies_does_not_harm_its_daemon(tmp_path: Path) -> None:
    """A daemon goes on without its dashboard, and says in its log that it has ended."""
    with Daemon(tmp_path / "data", "--dashboard", "127.0.0.1:0") as daemon:
        beside(daemon)
        children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").parent.parent.glob("*/children")
        (child,) = {int(pid) for file in children for pid in file.read_text(encoding="ascii").split()}
        os.kill(child, signal.SIGKILL)
        until = time.monotonic() + 20.0
        while "dashboard_ended" not in daemon.log.read_text(encoding="utf-8"):
            assert time.monotonic() < until
            time.sleep(0.02)
        train(daemon.address, "a")
        assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("address", "where"),
    [
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("0.0.0.0:1", "127.0.0.1:1"),
        ("[::]:1", "[::1]:1"),
        ("unix:/a/b.sock", "unix:/a/b.sock"),
        ("gpu-7:1", "gpu-7:1"),
    ],
)
def test_where_this_machine_reaches_a_daemon(address: str, where: str) -> None:
    """A daemon that listens on all addresses is reached at that of loopback."""
    assert reached(address) == where


def test_the_data_of_a_daemon_that_has_ended(tmp_path: Path) -> None:
    """The command that the demo prints shows the runs in its folder, whose daemon has ended."""
    state = tmp_path / "state"
    with Daemon(state) as daemon:
        train(daemon.address, "kept")
        daemon.stop()
    words = shlex.split(dashboard_command(state))
    assert Path(words[0]).exists()
    assert words[1:] == ["dashboard", "--data-dir", str(state)]
    with Dashboard(*words[2:4]) as dashboard:
        assert [run["id"] for run in dashboard.get("/api/runs").json["runs"]] == ["kept"]
    assert not (state / "daemon.address").exists()


def test_this_users_daemon_is_shown_and_knows_its_dashboard(home: Home) -> None:
    """Without an address, this user's daemon is started and shown, and runs name the dashboard meanwhile."""
    environment = {**os.environ, **home.environment}
    environment = {name: value for name, value in environment.items() if value}
    process = subprocess.Popen(
        [sys.executable, "-m", "mlrs_cli", "dashboard", "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    dashboard = Dashboard()
    dashboard.url = process.stdout.readline().split()[-1]
    try:
        assert dashboard.get("/api/runs").json["runs"] == []
        assert dashboard.get("/api/session").json["daemon"]["address"] == home.place.address
        assert dashboard_url(home.place) == dashboard.url
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0
    assert dashboard_url(home.place) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--demo", "--connect", "127.0.0.1:1"], "exclude each other"),
        (["--demo", "--data-dir", "."], "exclude each other"),
        (["--data-dir", "."], "no daemon has kept runs"),
        (["--listen", "8265"], "HOST:PORT"),
        (["--listen", "a:99999"], "HOST:PORT"),
        (["--tls-cert", __file__], "go together"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    """Options that contradict each other, or are malformed, are errors that name them."""
    monkeypatch.chdir(tmp_path)
    if "--demo" not in arguments and "--data-dir" not in arguments:
        arguments = ["--connect", "127.0.0.1:1", *arguments]
    result = CliRunner().invoke(command, ["dashboard", *arguments])
    assert result.exit_code != 0
    assert said in result.output


def test_a_daemon_with_tls_wants_a_dashboard_by_itself(tmp_path: Path) -> None:
    """`mlrs serve --dashboard` says that it cannot trust a certificate by itself, and what to do."""
    arguments = ["--data-dir", str(tmp_path / "data")]
    for option in ("--tls-cert", "--tls-key"):
        file = tmp_path / f"{option}.pem"
        file.write_text("", encoding="utf-8")
        arguments += [option, str(file)]
    result = CliRunner().invoke(command, ["serve", "--dashboard", "127.0.0.1:0", *arguments])
    assert result.exit_code == 2
    assert "--ca-file" in result.output
