"""`mlrs health`: what probes and scripts go by."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlrs_cli.root import command
from tests.server.auth.certificates import Authority, write_pair
from tests.support.daemon import Daemon, write_random_model

TIMEOUT = ("--timeout-s", "20")


def ask(address: str, *arguments: str) -> Result:
    """Run the command on a daemon."""
    return CliRunner().invoke(command, ["health", "--address", address, *arguments])


@pytest.mark.parametrize("service", ["", "mlrs.v1.AdvisorService", "mlrs.v1.Store"])
def test_a_daemon_that_serves_is_healthy(daemon: Daemon, service: str) -> None:
    """The daemon, its service and its store serve: status 0."""
    result = ask(daemon.address, "--service", service, *TIMEOUT)
    assert (result.exit_code, result.output) == (0, "SERVING\n")


def test_a_service_that_there_is_none_of_is_named(daemon: Daemon) -> None:
    """A typing error in the service's name is said to be one: status 1."""
    result = ask(daemon.address, "--service", "mlrs.v1.Sotre", *TIMEOUT)
    assert result.exit_code == 1
    assert "the daemon knows no service 'mlrs.v1.Sotre'" in result.output


def test_nobody_there_is_no_health() -> None:
    """Where nothing listens: status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    result = ask(address)
    assert result.exit_code == 1
    assert address in result.output


def test_a_certificate_of_another_name_needs_that_name(tmp_path: Path) -> None:
    """Replicas that are reached by number share a certificate of one name, which `--server-name` says."""
    authority = Authority()
    cert, key = write_pair(authority.server("mlrs.test"), tmp_path / "tls")
    ca = str(authority.write(tmp_path / "ca.pem"))
    model = write_random_model(tmp_path / "tiny.safetensors")
    secure = ("--tls-cert", str(cert), "--tls-key", str(key), "--model", str(model))
    with Daemon(tmp_path / "data", *secure) as running:
        named = ("--ca-file", ca, "--server-name", "mlrs.test")
        assert ask(running.address, *named, *TIMEOUT).exit_code == 0
        assert ask(running.address, "--ca-file", ca).exit_code == 1, "the address is not in the certificate"
        listed = CliRunner().invoke(command, ["models", "list", "--address", running.address, *named])
        assert listed.exit_code == 0, listed.output
