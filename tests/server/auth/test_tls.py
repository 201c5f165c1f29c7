"""TLS and mutual TLS, with real certificates."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlrs_proto import v1 as pb
from mlrs_server.auth.tls import TlsFiles, _Reader, server_credentials
from mlrs_server.errors import Reason
from tests.server.auth.certificates import Authority, secure_stub, write_pair
from tests.server.support import channel, columns, create, raises, service

Code = grpc.StatusCode
LIST = pb.ListRunsRequest()


@pytest.fixture
def authority() -> Authority:
    """An authority that both sides trust."""
    return Authority()


async def asked(address: str, authority: Authority, shown: Any = None) -> grpc.StatusCode:
    """Return the outcome of a call over a new connection."""
    async with secure_stub(address, authority, shown) as stub:
        try:
            await stub.ListRuns(LIST, timeout=20)  # type: ignore[misc]  # the stubs know one kind
        except grpc.aio.AioRpcError as error:
            return error.code()
        return Code.OK


def serial_at(address: str, ca: Path) -> str:
    """Return the serial number of a daemon's certificate on a new connection."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port)), 20) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        shown = connection.getpeercert()
        assert shown is not None
        return str(shown["serialNumber"])


async def test_a_daemon_speaks_tls_alone(tmp_path: Path, model_file: Path, authority: Authority) -> None:
    """Runs are advised over TLS; a client that trusts another authority or uses no TLS is not served."""
    cert, key = write_pair(authority.server(), tmp_path / "tls")
    async with service(tmp_path / "d", model_file, tls_cert=cert, tls_key=key) as (_, address):
        async with secure_stub(address, authority) as stub:
            handle = await create(stub, "a")
            call: Any = stub.StreamAdvice(timeout=20)
            await call.write(columns((handle, 0, 1.0)))
            assert not (await call.read()).advice.errors
            await call.done_writing()
        assert await asked(address, Authority()) == Code.UNAVAILABLE
        async with channel(address) as plain:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await plain.ListRuns(LIST, timeout=20)  # type: ignore[misc]  # as for `asked`
            assert caught.value.code() == Code.UNAVAILABLE


async def test_an_expired_certificate_is_refused(
    tmp_path: Path, model_file: Path, authority: Authority
) -> None:
    """A client refuses a daemon whose certificate has expired, and a daemon such a client."""
    ca = authority.write(tmp_path / "ca.pem")
    cert, key = write_pair(authority.server(expired=True), tmp_path / "old")
    async with service(tmp_path / "d", model_file, tls_cert=cert, tls_key=key) as (_, address):
        assert await asked(address, authority) == Code.UNAVAILABLE
    cert, key = write_pair(authority.server(), tmp_path / "new")
    settings = {"tls_cert": cert, "tls_key": key, "tls_client_ca": ca}
    async with service(tmp_path / "d", model_file, **settings) as (_, address):
        assert await asked(address, authority, authority.client(expired=True)) == Code.UNAVAILABLE
        assert await asked(address, authority, authority.client()) == Code.OK


async def test_mutual_tls_needs_a_certificate(tmp_path: Path, model_file: Path, authority: Authority) -> None:
    """With authorities of clients set, a client needs a certificate of theirs."""
    ca = authority.write(tmp_path / "ca.pem")
    cert, key = write_pair(authority.server(), tmp_path / "tls")
    settings = {"tls_cert": cert, "tls_key": key, "tls_client_ca": ca}
    async with service(tmp_path / "d", model_file, **settings) as (_, address):
        assert await asked(address, authority, authority.client()) == Code.OK
        assert await asked(address, authority) == Code.UNAVAILABLE
        assert await asked(address, authority, Authority().client()) == Code.UNAVAILABLE


async def test_rotated_certificates_are_used_for_new_connections(
    tmp_path: Path, model_file: Path, authority: Authority
) -> None:
    """New connections get the rotated certificate; streams continue; an invalid pair is not used."""
    ca = authority.write(tmp_path / "ca.pem")
    cert, key = write_pair(authority.server(), tmp_path / "tls")
    async with service(tmp_path / "d", model_file, tls_cert=cert, tls_key=key) as (_, address):  # noqa: SIM117
        async with secure_stub(address, authority) as stub:
            handle = await create(stub, "a")
            call: Any = stub.StreamAdvice(timeout=20)
            serials = [await asyncio.to_thread(serial_at, address, ca)]
            for step in range(3):
                write_pair(authority.server(), tmp_path / "tls")
                serials.append(await asyncio.to_thread(serial_at, address, ca))
                await call.write(columns((handle, step, 1.0)))
                assert not (await call.read()).advice.errors
            assert len(set(serials)) == 4
            for broken in (b"rubbish", Authority().server().private_key_pem.bytes(), b""):
                key.write_bytes(broken)
                assert await asyncio.to_thread(serial_at, address, ca) == serials[-1]
            key.unlink()
            assert await asyncio.to_thread(serial_at, address, ca) == serials[-1]
            write_pair(authority.server(), tmp_path / "tls")
            assert await asyncio.to_thread(serial_at, address, ca) not in serials
            await call.done_writing()


async def test_authorities_of_clients_rotate_too(
    tmp_path: Path, model_file: Path, authority: Authority
) -> None:
    """After the file of clients' authorities changed, certificates of the old authority are refused."""
    cert, key = write_pair(authority.server(), tmp_path / "tls")
    old, new = Authority(), Authority()
    ca = old.write(tmp_path / "clients.pem")
    settings = {"tls_cert": cert, "tls_key": key, "tls_client_ca": ca}
    async with service(tmp_path / "d", model_file, **settings) as (_, address):
        assert await asked(address, authority, old.client()) == Code.OK
        new.write(ca)
        assert await asked(address, authority, new.client()) == Code.OK
        assert await asked(address, authority, old.client()) == Code.UNAVAILABLE


@pytest.mark.parametrize("kind", ["missing", "rubbish", "other key", "password", "swapped", "client ca"])
def test_files_that_cannot_be_used_are_named(tmp_path: Path, authority: Authority, kind: str) -> None:
    """A pair that does not match, or cannot be read, is named at the start."""
    cert, key = write_pair(authority.server(), tmp_path / "tls")
    files = TlsFiles(cert, key)
    match kind:
        case "missing":
            key.unlink()
        case "rubbish":
            cert.write_text("rubbish")
        case "other key":
            key.write_bytes(Authority().server().private_key_pem.bytes())
        case "password":
            key.write_bytes(key.read_bytes().replace(b"PRIVATE KEY", b"ENCRYPTED PRIVATE KEY"))
        case "swapped":
            files = TlsFiles(key, cert)
        case _:
            files = TlsFiles(cert, key, tmp_path / "nowhere.pem")
    with raises(Reason.INVALID_FIELD, field="tls_cert", match="cannot be used"):
        server_credentials(files)


def test_files_that_did_not_change_are_not_read(tmp_path: Path, authority: Authority) -> None:
    """A connection costs three stats of the files, not three reads; a change is logged once."""
    cert, key = write_pair(authority.server(), tmp_path / "tls")
    files = TlsFiles(cert, key)
    reader = _Reader(files, files.stamps())
    assert reader.changed() is None
    write_pair(authority.server(), tmp_path / "tls")
    assert reader.changed() is not None
    assert reader.changed() is None
