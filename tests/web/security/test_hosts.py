"""The names under which browsers may reach the dashboard."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from mlrs_cli.root import command
from mlrs_web.security.hosts import AllowedHostError, allowed_names, name_of
from mlrs_web.settings import Settings
from tests.support.daemon import Daemon
from tests.support.dashboard import Dashboard


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8265", "localhost"),
        ("localhost.:8265", "localhost"),
        ("127.0.0.1:8265", "127.0.0.1"),
        ("[::1]:8265", "::1"),
        ("[::1]", "::1"),
        ("", ""),
        ("localhost:evil.example", ""),
        ("[::1]evil.example", ""),
        ("evil.example#localhost", "evil.example#localhost"),
    ],
)
def test_the_name_of_a_header(header: str, name: str) -> None:
    """The name is taken without port, brackets and case; malformed headers name nothing."""
    assert name_of(header) == name


def test_the_listening_host_is_allowed_unless_it_is_all_of_them() -> None:
    """The host that is listened on is a name of the dashboard; that of all addresses is none."""
    assert "10.0.0.7" in allowed_names(Settings(listen="10.0.0.7:1"))
    assert "0.0.0.0" not in allowed_names(Settings(listen="0.0.0.0:1"))  # noqa: S104  # compared with
    assert "" not in allowed_names(Settings(listen="0.0.0.0:1"))


@pytest.mark.parametrize(
    "host", ["https://runs.acme.org", "runs.acme.org/path", "*.acme.org", "", "a b", "fd00::7", "[fd00::7"]
)
def test_a_malformed_allowed_host_is_an_error(host: str) -> None:
    """What cannot be the name in a browser's request is refused, and the error shows names that can."""
    with pytest.raises(AllowedHostError, match=r"--allowed-host must be .*runs\.acme\.org") as raised:
        allowed_names(Settings(allowed_hosts=("localhost", host)))
    assert repr(host) in str(raised.value)


def test_what_is_an_allowed_host() -> None:
    """Names and addresses are allowed hosts, with a port and in any case, and * for all of them."""
    hosts = ("Runs.acme.org:443", "gpu_7", "10.0.0.7", "[fd00::7]", "*")
    assert allowed_names(Settings(allowed_hosts=hosts)) >= {
        "runs.acme.org",
        "gpu_7",
        "10.0.0.7",
        "fd00::7",
        "*",
    }


def test_the_command_refuses_a_malformed_allowed_host() -> None:
    """The command ends with the usage error of the option, and serves nothing."""
    arguments = ["dashboard", "--connect", "127.0.0.1:1", "--allowed-host", "https://runs.acme.org"]
    ran = CliRunner().invoke(command, arguments)
    assert ran.exit_code == 2
    assert "Invalid value for --allowed-host: " in ran.output


def test_a_strangers_name_is_refused(daemon: Daemon) -> None:
    """A request under another name is refused, and told the option; an allowed name is answered."""
    with Dashboard("--connect", daemon.address, "--allowed-host", "runs.acme.org") as running:
        for host, status in {"runs.acme.org": 200, "localhost:1": 200, "evil.example": 400, "": 400}.items():
            for path in ("/api/runs", "/"):
                answer = running.request("GET", path, headers={"Host": host})
                assert answer.status == status, (host, path)
                assert status == 200 or b"--allowed-host" in answer.body
