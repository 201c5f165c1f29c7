"""`mlrs tokens`, and the other commands at a daemon that wants one."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result

from mlrs_cli.root import command
from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from mlrs_server.auth.tokens import TOKEN
from tests.server.auth.certificates import Authority, write_pair
from tests.support.daemon import Daemon, write_random_model

SECRET_FLAGS = ("--tls-cert", "{cert}", "--tls-key", "{key}", "--tls-client-ca", "{ca}")


def _mlrs(*arguments: object, token: str | None = None) -> Result:
    env = {"COLUMNS": "200", "MLRS_TOKEN": token, "MLRS_TARGET": None, "MLRS_DATA_DIR": None}
    return CliRunner(env=env).invoke(command, list(map(str, arguments)))


def _created(data_dir: Path, *arguments: object) -> str:
    result = _mlrs("tokens", "create", "--data-dir", data_dir, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates."""
    folder = tmp_path_factory.mktemp("secure")
    authority = Authority()
    authority.write(folder / "ca.pem")
    write_pair(authority.server(), folder / "server")
    write_pair(authority.client(), folder / "client")
    return folder


@pytest.fixture(scope="module")
def secured(folder: Path) -> Iterator[tuple[Daemon, str]]:
    """A daemon with mutual TLS, and the token of an admin of `acme`."""
    token = _created(folder / "data", "--tenant", "acme", "--role", "admin")
    flags = [
        flag.format(
            cert=folder / "server" / "cert.pem", key=folder / "server" / "key.pem", ca=folder / "ca.pem"
        )
        for flag in SECRET_FLAGS
    ]
    model = write_random_model(folder / "tiny.safetensors")
    with Daemon(folder / "data", "--model", str(model), *flags) as daemon:
        yield daemon, token


def _access(daemon: Daemon, folder: Path) -> list[object]:
    client = folder / "client"
    return ["--address", daemon.address, "--ca-file", folder / "ca.pem", "--cert-file", client / "cert.pem",
            "--key-file", client / "key.pem"]  # fmt: skip


def test_a_token_is_shown_once(tmp_path: Path) -> None:
    """`create` prints the token alone on standard output, and how to use it beside; `list` no secret."""
    result = _mlrs(
        "tokens", "create", "--data-dir", tmp_path, "--tenant", "acme", "--expires", "30d", "--name", "ci"
    )
    match = TOKEN.fullmatch(result.stdout.strip())
    assert match is not None
    assert "MLRS_TOKEN" in result.stderr
    assert match[2] not in result.stderr
    listed = _mlrs("tokens", "list", "--data-dir", tmp_path).output
    assert match[1] in listed
    assert match[2] not in listed
    assert all(word in listed for word in ("acme", "advise", "ci", "until 20"))


def test_a_token_to_read_is_listed_as_such(tmp_path: Path) -> None:
    """`create --role read` makes a token that changes nothing, and the list says so."""
    token_id = _created(tmp_path, "--role", "read").split("_")[1]
    (line,) = [
        line
        for line in _mlrs("tokens", "list", "--data-dir", tmp_path).output.splitlines()
        if token_id in line
    ]
    assert "read" in line


def test_a_revoked_token_is_listed_as_such(tmp_path: Path) -> None:
    """`revoke` names what it revoked, and the list keeps it; an id of nothing is an error."""
    _created(tmp_path, "--tenant", "acme")
    token_id = _created(tmp_path).split("_")[1]
    assert f"revoked token {token_id}" in _mlrs("tokens", "revoke", token_id, "--data-dir", tmp_path).output
    (line,) = [
        line
        for line in _mlrs("tokens", "list", "--data-dir", tmp_path).output.splitlines()
        if token_id in line
    ]
    assert "revoked 20" in line
    missing = _mlrs("tokens", "revoke", "nothing", "--data-dir", tmp_path)
    assert missing.exit_code == 1
    assert "mlrs tokens list" in missing.output


def test_a_file_of_tokens_can_be_elsewhere(tmp_path: Path) -> None:
    """`--tokens-file` says where tokens are; without tokens the list is empty, and no error."""
    file = tmp_path / "shared" / "t.json"
    assert _mlrs("tokens", "list", "--tokens-file", file).exit_code == 0
    assert _mlrs("tokens", "create", "--tokens-file", file).exit_code == 0
    assert file.exists()
    file.write_text("{")
    broken = _mlrs("tokens", "list", "--tokens-file", file)
    assert broken.exit_code == 1
    assert "cannot be read" in broken.output


@pytest.mark.parametrize("lifetime", ["0d", "d", "-1d", "1", "1y", "1.5d", "9999999d"])
def test_a_lifetime_that_is_none_is_refused(tmp_path: Path, lifetime: str) -> None:
    """Lifetimes are a number and a unit."""
    result = _mlrs("tokens", "create", "--data-dir", tmp_path, "--expires", lifetime)
    assert result.exit_code == 2
    assert "no lifetime" in result.output


def test_a_model_goes_up_and_an_alias_moves(secured: tuple[Daemon, str], folder: Path) -> None:
    """`models import --address` and `models alias` work over mutual TLS with an admin's token."""
    daemon, token = secured
    model = write_random_model(folder / "mine.safetensors", seed=8)
    access = _access(daemon, folder)
    result = _mlrs("models", "import", "--name", "mine", *access, model, token=token)
    assert re.match(r"uploaded mine@[0-9a-f]{12} ", result.output), result.output
    moved = _mlrs("models", "alias", "stable", "mine", *access, token=token)
    assert moved.output.startswith("stable is mine@")
    assert _mlrs("models", "alias", "stable", "nobody", *access, token=token).exit_code == 1


@pytest.mark.parametrize("lacking", ["token", "role", "certificate", "tls"])
def test_what_lacks_is_said(secured: tuple[Daemon, str], folder: Path, lacking: str) -> None:
    """Without a token, its role or a certificate, a command ends with the daemon's words and no traceback."""
    daemon, token = secured
    access = _access(daemon, folder)
    if lacking == "role":
        token = _created(folder / "data", "--tenant", "acme")
    if lacking == "certificate":
        access = access[:4]
    if lacking == "tls":
        access = access[:2]
    arguments = ["models", "alias", "x", "tiny", *access]
    result = _mlrs(*arguments, token=None if lacking == "token" else token)
    deadline = time.monotonic() + 20
    while lacking == "role" and "role" not in result.output and time.monotonic() < deadline:
        result = _mlrs(*arguments, token=token)  # until the daemon knows the token
    assert result.exit_code == 1
    assert {"token": "needs a token with every call", "role": "needs a token of the role admin"}.get(
        lacking, daemon.address
    ) in result.output
    assert "Traceback" not in result.output


def test_a_token_does_not_travel_in_the_clear() -> None:
    """Beyond this machine a token is sent over TLS alone."""
    result = _mlrs("models", "alias", "x", "y", "--address", "203.0.113.1:50051", token="mlrs_x")  # noqa: S106
    assert result.exit_code == 2
    assert "in the clear" in result.output


def test_no_secret_is_logged(secured: tuple[Daemon, str], folder: Path) -> None:
    """What a daemon logs, at any level, holds no token: neither a good one nor one that was refused."""
    daemon, token = secured
    credentials = grpc.ssl_channel_credentials(
        (folder / "ca.pem").read_bytes(),
        (folder / "client" / "key.pem").read_bytes(),
        (folder / "client" / "cert.pem").read_bytes(),
    )
    with grpc.secure_channel(daemon.address, credentials) as channel:
        stub = AdvisorServiceStub(channel)
        for sent in (token, token[:-1] + "A", "hunter2-hunter2"):
            metadata = [("authorization", f"Bearer {sent}")]
            for run_id in ("fine", "!", f"mlrs-{time.time()}"):
                try:
                    stub.OpenRun(pb.OpenRunRequest(run_id=run_id), metadata=metadata, timeout=20)
                except grpc.RpcError:
                    continue
    log = daemon.log.read_text()
    assert "run_created" in log
    assert token.split("_", 2)[2][:20] not in log
    assert "hunter2" not in log


@pytest.mark.parametrize(
    "loss",
    [
        "deleted",
        pytest.param("emptied", marks=pytest.mark.slow),
        pytest.param("not named any more", marks=pytest.mark.slow),
    ],
)
def test_a_daemon_that_wanted_tokens_goes_on_wanting_them(tmp_path: Path, loss: str) -> None:
    """A daemon that wanted tokens does not start without any, and says how to make some, or do without."""
    data_dir, marker = tmp_path / "data", tmp_path / "data" / "tokens.required"
    file = tmp_path / "elsewhere.json" if loss == "not named any more" else data_dir / "tokens.json"
    named = ["--tokens-file", str(file)] if loss == "not named any more" else []
    _created(data_dir, "--tokens-file", file)
    with Daemon(data_dir, *named) as daemon:
        assert daemon.stop() == 0
    match loss:
        case "deleted":
            file.unlink()
        case "emptied":
            file.write_text('{"format": 1, "tokens": []}')
    said = _refused_to_start(data_dir)
    assert str(data_dir / "tokens.json") in said
    assert f"mlrs tokens create --data-dir {data_dir}" in said
    assert f"delete {marker}" in said
    assert said.splitlines()[-1].startswith("Error: tokens_file: ")
    marker.unlink()
    with Daemon(data_dir) as daemon:
        assert _mlrs("runs", "list", "--address", daemon.address).exit_code == 0
    _created(data_dir)
    with Daemon(data_dir) as daemon:
        assert _mlrs("runs", "list", "--address", daemon.address).exit_code == 1


def test_tokens_that_come_while_it_runs_are_remembered(tmp_path: Path) -> None:
    """A daemon that was open and took up its first token as it ran does not start open again."""
    data_dir = tmp_path / "data"
    with Daemon(data_dir) as daemon:
        _created(data_dir)
        deadline = time.monotonic() + 60
        while not (data_dir / "tokens.required").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        daemon.kill()
    (data_dir / "tokens.json").unlink()
    assert "tokens" in _refused_to_start(data_dir)


def _refused_to_start(data_dir: Path) -> str:
    """Start a daemon, which must end; return what it says on standard error."""
    command = [sys.executable, "-m", "mlrs_cli", "serve", "--data-dir", str(data_dir)]
    command += ["--listen", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stdout
    return done.stderr
