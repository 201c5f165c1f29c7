"""Real certificates, and channels that present them."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import trustme

from tests.support.stubs import Stub


class Authority:
    """An authority of certificates."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return self._ca.cert_pem.bytes()

    def write(self, path: Path) -> Path:
        """Write its certificate; return the file."""
        path.write_bytes(self.pem)
        return path

    def server(self, *names: str, expired: bool = False) -> trustme.LeafCert:
        """Return a certificate of a daemon, on loopback unless names are given."""
        return self._ca.issue_cert(*(names or ("localhost", "127.0.0.1")), not_after=_end(expired=expired))

    def client(self, *, expired: bool = False) -> trustme.LeafCert:
        """Return a certificate of a client."""
        return self._ca.issue_cert("client", not_after=_end(expired=expired))


def _end(*, expired: bool) -> dt.datetime | None:
    return dt.datetime.now(dt.UTC) - dt.timedelta(hours=1) if expired else None


def chain_of(leaf: trustme.LeafCert) -> bytes:
    """Return a certificate and its intermediate ones."""
    return b"".join(pem.bytes() for pem in leaf.cert_chain_pems)


def write_pair(leaf: trustme.LeafCert, folder: Path) -> tuple[Path, Path]:
    """Write a certificate and its key; return the files."""
    folder.mkdir(exist_ok=True)
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(chain_of(leaf))
    key.write_bytes(leaf.private_key_pem.bytes())
    return cert, key


@asynccontextmanager
async def secure_stub(
    address: str, authority: Authority, shown: trustme.LeafCert | None = None
) -> AsyncIterator[Stub]:
    """Connect anew over TLS."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=authority.pem,
        private_key=None if shown is None else shown.private_key_pem.bytes(),
        certificate_chain=None if shown is None else chain_of(shown),
    )
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, credentials, options=options) as connection:
        yield Stub(connection)
