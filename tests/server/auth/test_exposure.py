"""Where a daemon may listen without TLS and tokens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlrs_server.auth import exposure
from mlrs_server.auth.exposure import check_exposure, is_local
from mlrs_server.auth.roles import Role
from mlrs_server.auth.tokens import TokenFile
from mlrs_server.errors import AdvisorError, Reason
from tests.server.auth.certificates import Authority, write_pair
from tests.server.support import raises, service


@pytest.mark.parametrize(
    ("listen", "local"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/run/mlrs.sock", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("192.168.0.1:1", False),
        ("128.0.0.1:1", False),
        ("[::ffff:8.8.8.8]:1", False),
        ("localhost.example.org:1", False),
        ("127.0.0.1.example.org:1", False),
        ("machine:1", False),
        ("*:1", False),
    ],
)
def test_local_is_what_only_this_machine_reaches(listen: str, *, local: bool) -> None:
    """Loopback and sockets are local; every other address, and every name but localhost, may not be."""
    assert is_local(listen) == local


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("client_certificates", [False, True])
@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("insecure", [False, True])
def test_open_to_others_needs_tls_and_authentication(
    *, tls: bool, client_certificates: bool, tokens: bool, insecure: bool
) -> None:
    """Beyond this machine TLS is needed, and tokens or client certificates; the error says what lacks."""
    given = {"tls": tls, "client_certificates": client_certificates, "tokens": tokens, "insecure": insecure}
    check_exposure("127.0.0.1:1", **given)
    if insecure or (tls and (tokens or client_certificates)):
        check_exposure("0.0.0.0:1", **given)
        return
    with pytest.raises(AdvisorError, match="--insecure") as caught:
        check_exposure("0.0.0.0:1", **given)
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "listen")
    assert ("--tls-cert" in str(caught.value)) == (not tls)
    assert ("mlrs tokens create" in str(caught.value)) == (not tokens and not client_certificates)


def test_serve_refuses_and_says_what_to_do(tmp_path: Path) -> None:
    """`mlrs serve` on all addresses, with nothing else, ends with one clear message."""
    command = [
        sys.executable,
        "-m",
        "mlrs_cli",
        "serve",
        "--listen",
        "0.0.0.0:0",
        "--data-dir",
        str(tmp_path),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    for way in ("--tls-cert", "mlrs tokens create", "--tls-client-ca", "--insecure", "127.0.0.1"):
        assert way in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not ended.stdout


async def test_a_daemon_with_both_may_listen_anywhere(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where others can reach it, a daemon starts only with TLS and a token, or with `--insecure`."""
    monkeypatch.setattr(exposure, "is_local", lambda _: False)  # loopback stands for any address
    cert, key = write_pair(Authority().server(), tmp_path / "tls")
    with raises(Reason.INVALID_FIELD, field="listen", match="mlrs tokens create"):
        async with service(tmp_path / "d", model_file, tls_cert=cert, tls_key=key):
            pass
    async with service(tmp_path / "d", model_file, insecure=True):
        pass
    TokenFile(tmp_path / "d" / "tokens.json").create(tenant="", role=Role.ADMIN)
    with raises(Reason.INVALID_FIELD, field="listen", match="--tls-cert"):
        async with service(tmp_path / "d", model_file):
            pass
    async with service(tmp_path / "d", model_file, tls_cert=cert, tls_key=key):
        pass
