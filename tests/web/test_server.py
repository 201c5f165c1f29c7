"""The process of the dashboard: its start, and its end."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import trustme

from tests.support.daemon import Daemon
from tests.support.dashboard import Dashboard

COMMAND = [sys.executable, "-m", "mlrs_cli", "dashboard", "--connect", "127.0.0.1:1"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_with_open_streams(daemon: Daemon, number: signal.Signals) -> None:
    """Ctrl-C, or SIGTERM, ends it in good order although pages follow streams: they see the end of those."""
    running = Dashboard("--connect", daemon.address).start()
    with running.follow("/api/live-health") as health, running.follow("/api/live-runs") as runs:
        health.until("health")
        runs.until("runs")
        assert running.end(number) == (0, "")
        for stream in (health, runs):
            with pytest.raises(EOFError):
                stream.until("none")


def test_it_ends_when_who_started_it_does(daemon: Daemon) -> None:
    """Started with a pipe as its standard input, it ends when nobody holds the other end any more."""
    command = [*COMMAND[:-1], daemon.address, "--listen", "127.0.0.1:0", "--until-stdin-closes"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline().startswith("dashboard: ")
    process.stdin.close()
    assert process.wait(20) == 0
    process.stdout.close()


def test_a_taken_port_is_a_clear_error() -> None:
    """Where another program listens, the error names the address, and the option to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        ran = subprocess.run([*COMMAND, "--listen", address], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert f"cannot listen on {address}: another program listens there" in ran.stderr
    assert "--listen" in ran.stderr


def test_it_does_not_listen_to_other_machines_by_mistake() -> None:
    """Without TLS and `--insecure`, an address that other machines reach is refused."""
    ran = subprocess.run([*COMMAND, "--listen", "0.0.0.0:0"], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "lacks TLS (--tls-cert and --tls-key)" in ran.stderr


def test_without_its_libraries_it_says_how_to_install_them(tmp_path: Path) -> None:
    """In an environment without Starlette, the command says what to install."""
    missing = "raise ModuleNotFoundError('none here', name='starlette')"
    (tmp_path / "starlette").mkdir()
    (tmp_path / "starlette" / "__init__.py").write_text(missing, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        COMMAND, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert ran.returncode == 1
    assert "pip install 'mlrs[dashboard]'" in ran.stderr


def test_pages_over_tls(daemon: Daemon, tmp_path: Path) -> None:
    """With a certificate, pages are served over TLS."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = {"cert": tmp_path / "cert.pem", "key": tmp_path / "key.pem"}
    certificate.cert_chain_pems[0].write_to_path(str(files["cert"]))
    certificate.private_key_pem.write_to_path(str(files["key"]))
    arguments = ["--tls-cert", str(files["cert"]), "--tls-key", str(files["key"])]
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with Dashboard("--connect", daemon.address, *arguments) as running:
        assert running.url.startswith("https://")
        with urllib.request.urlopen(f"{running.url}/api/runs", context=trusting) as answer:  # noqa: S310 # https
            assert answer.status == 200
