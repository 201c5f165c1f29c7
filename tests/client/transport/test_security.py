"""Tokens and TLS: what travels, what does not, and that no message shows a secret."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

import mlrs
from mlrs import TLS
from mlrs.transport.access import access_of
from tests.client.conftest import done
from tests.client.fake_daemon import FakeDaemon, Records, lr_sequence
from tests.support.runs import opened

TOKEN = "mlrs-s3cret"  # noqa: S105 # of these tests


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLRS_TOKEN", raising=False)


@pytest.fixture
def guarded() -> Iterator[FakeDaemon]:
    """A daemon that wants a token with every call."""
    daemon = FakeDaemon(token=TOKEN)
    yield daemon
    daemon.stop()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The files of a certificate authority, of the daemon `mlrs.test`, and of a client."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("mlrs.test", "client"):
        issued = authority.issue_cert(name)
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    return {path.name: path for path in tmp_path.iterdir()}


@pytest.fixture
def encrypted(files: dict[str, Path]) -> Iterator[FakeDaemon]:
    """A daemon with mutual TLS and tokens."""
    pair = files["mlrs.test.key"].read_bytes(), files["mlrs.test.pem"].read_bytes()
    authority = files["ca.pem"].read_bytes()
    credentials = grpc.ssl_server_credentials([pair], authority, require_client_auth=True)
    daemon = FakeDaemon(token=TOKEN, credentials=credentials)
    yield daemon
    daemon.stop()


@pytest.mark.parametrize("source", ["argument", "environment"])
async def test_tokens(
    connect: Any, guarded: FakeDaemon, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token goes with every call and stream, given or from the environment."""
    if source == "environment":
        monkeypatch.setenv("MLRS_TOKEN", TOKEN)
    advisor = connect(guarded.target, timeout_s=5.0, token=TOKEN if source == "argument" else None)
    run = await opened(advisor, "a")
    assert await done(run.next_lr(0, 1.0)) == lr_sequence([1.0])[0]
    assert (await done(advisor.get_run("a"))).id == "a"
    assert TOKEN not in repr(advisor) + repr(run)
    await done(advisor.close())


@pytest.mark.parametrize("token", [None, "another-s3cret"])
async def test_bad_tokens(connect: Any, guarded: FakeDaemon, token: str | None) -> None:
    """Without a good token calls fail, at once, and the error does not show the token."""
    advisor = connect(guarded.target, timeout_s=5.0, token=token)
    with pytest.raises(mlrs.errors.UnauthenticatedError) as caught:
        await opened(advisor, "a")
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    assert isinstance(caught.value, PermissionError)
    assert "token=" in str(caught.value)
    assert "MLRS_TOKEN" in str(caught.value)
    await done(advisor.close())


async def test_a_token_that_is_revoked(connect: Any, guarded: FakeDaemon) -> None:
    """A token that is revoked under way: the fallback continues; without one the error is raised."""
    advisor = connect(guarded.target, timeout_s=0.5, token=TOKEN)
    run = await opened(advisor, "a", timeout_s=10.0)
    plain = await opened(advisor, "b", fallback=None, timeout_s=10.0)
    lr = await done(run.next_lr(0, 1.0, timeout_s=10.0))
    await done(plain.next_lr(0, 1.0, timeout_s=10.0))
    guarded.token = "rotated"  # noqa: S105 # of these tests
    guarded.cut()
    assert await done(run.next_lr(1, 1.0)) == lr
    with pytest.raises(mlrs.errors.UnauthenticatedError):
        await done(plain.next_lr(1, 1.0, timeout_s=3.0))
    guarded.token = TOKEN
    await done(run.finish(timeout_s=10.0))
    assert guarded.runs["a"].losses == [1.0, 1.0]
    await done(advisor.close())


@pytest.mark.parametrize("token", ["", "two words", "new\nline", "ümlaut", "x" * 5000, 7])
def test_malformed_tokens(token: Any) -> None:
    """What cannot be a token is refused, and not shown."""
    with pytest.raises(mlrs.errors.InvalidArgumentError) as caught:
        mlrs.connect("localhost:1", token=token)
    assert caught.value.field == "token"
    assert str(token) not in str(caught.value) or token in {"", 7}


@pytest.mark.parametrize("target", ["example.org:1", "10.0.0.1:1", "localhost:1,192.0.2.1:1"])
def test_tokens_in_the_clear(target: str) -> None:
    """A token leaves the machine encrypted, or if it is said to be all right."""
    with pytest.raises(mlrs.errors.InvalidArgumentError, match="allow_insecure_token") as caught:
        mlrs.connect(target, token=TOKEN)
    assert TOKEN not in str(caught.value)
    mlrs.connect(target, token=TOKEN, tls=True).close()
    mlrs.connect(target, token=TOKEN, allow_insecure_token=True).close()
    mlrs.connect(target).close()


@pytest.mark.parametrize("target", ["localhost:1", "127.0.0.2:1", "[::1]:1", "unix:/tmp/mlrs.sock"])
def test_tokens_on_this_machine(target: str) -> None:
    """On loopback, and over unix sockets, tokens need no encryption."""
    mlrs.connect(target, token=TOKEN).close()


async def test_redirects_get_no_token_in_the_clear(connect: Any) -> None:
    """An address that a daemon names does not get the token in the clear either."""
    daemon = FakeDaemon(Records(), token=TOKEN)

    class Elsewhere:
        target = "192.0.2.1:50051"

    daemon.records.owners["a"] = Elsewhere()  # type: ignore[assignment] # names an address
    advisor = connect(daemon.target, timeout_s=0.5, token=TOKEN)
    with pytest.raises(mlrs.UnavailableError, match=r"192\.0\.2\.1"):
        await opened(advisor, "a")
    assert list(advisor._connection._links._links) == [daemon.target]
    await done(advisor.close())
    daemon.stop()


async def test_mutual_tls(connect: Any, encrypted: FakeDaemon, files: dict[str, Path]) -> None:
    """With the authority, a certificate of its own and the daemon's name, all calls go through."""
    tls = TLS(
        ca_file=files["ca.pem"],
        cert_file=str(files["client.pem"]),
        key_file=files["client.key"],
        server_name="mlrs.test",
    )
    advisor = connect(encrypted.target, timeout_s=5.0, token=TOKEN, tls=tls)
    run = await opened(advisor, "a", fallback=None)
    assert await done(run.next_lr(0, 1.0)) == lr_sequence([1.0])[0]
    await done(advisor.close())


@pytest.mark.parametrize("lack", ["authority", "certificate", "name", "tls"])
async def test_tls_that_does_not_match(
    connect: Any, encrypted: FakeDaemon, files: dict[str, Path], lack: str
) -> None:
    """Without the right authority, certificate or name no call is made: the daemon is unavailable."""
    tls = TLS(
        ca_file=None if lack == "authority" else files["ca.pem"],
        cert_file=None if lack == "certificate" else files["client.pem"],
        key_file=None if lack == "certificate" else files["client.key"],
        server_name="other.test" if lack == "name" else "mlrs.test",
    )
    advisor = connect(encrypted.target, timeout_s=5.0, token=TOKEN, tls=None if lack == "tls" else tls)
    with pytest.raises(mlrs.UnavailableError):
        await opened(advisor, "a")
    assert encrypted.opened == 0
    await done(advisor.close())


@pytest.mark.parametrize(
    ("tls", "field"),
    [
        (TLS(ca_file="/nowhere/ca.pem"), "ca_file"),
        (TLS(cert_file="/nowhere/cert.pem", key_file=__file__), "key_file"),
        (TLS(cert_file="cert.pem"), "key_file"),
        (TLS(key_file="key.pem"), "cert_file"),
        (TLS(ca_file=__file__), "ca_file"),
        ("yes", "tls"),
    ],
)
def test_bad_tls(tls: Any, field: str) -> None:
    """A file that is missing, or is none of the kind, is an error that names the argument."""
    with pytest.raises(mlrs.errors.InvalidArgumentError, match=field) as caught:
        mlrs.connect("localhost:1", tls=tls)
    assert caught.value.field == field


def test_secrets_are_not_shown() -> None:
    """What holds the token has a representation without it."""
    access = access_of(["localhost:1"], TOKEN, tls=None, allow_insecure_token=False)
    assert TOKEN not in repr(access)
    assert TOKEN in pickle.dumps(access.metadata).decode("latin-1")  # it is there
