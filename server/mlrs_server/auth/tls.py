"""TLS certificates, read again when their files change: new connections get the rotated certificate."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from mlrs_server.errors import AdvisorError, Reason

log = structlog.get_logger()

Stamps = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class TlsFiles:
    """Where the daemon's certificates are, as PEM."""

    cert: Path
    """The daemon's certificate, followed by the intermediate certificates."""
    key: Path
    """The private key of the daemon's certificate."""
    client_ca: Path | None = None
    """The authorities that sign clients' certificates; `None`: clients need no certificate."""

    def stamps(self) -> Stamps:
        """Return the files' modification times, inodes and sizes, which differ after a change."""
        statuses = [path.stat() for path in (self.cert, self.key, self.client_ca) if path is not None]
        return tuple((status.st_mtime_ns, status.st_ino, status.st_size) for status in statuses)

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Return the certificates.

        Raises:
            OSError: a file cannot be read, or certificate and key do not match (`ssl.SSLError` is one).
        """
        check = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        check.load_cert_chain(self.cert, self.key, password=_no_password)
        if self.client_ca is not None:
            check.load_verify_locations(self.client_ca)
        return grpc.ssl_server_certificate_configuration(
            [(self.key.read_bytes(), self.cert.read_bytes())],
            root_certificates=None if self.client_ca is None else self.client_ca.read_bytes(),
        )


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials that follow the files; after an invalid change, the old certificate stays in use.

    Raises:
        AdvisorError: the files cannot be used.
    """
    try:
        stamps = files.stamps()
        first = files.read()
    except OSError as error:
        raise AdvisorError(
            Reason.INVALID_FIELD,
            f"tls_cert: {files.cert}, {files.key}"
            f"{f' and {files.client_ca}' if files.client_ca else ''} cannot be used: {error}; "
            "give a certificate and its private key, as PEM and without a password",
            field="tls_cert",
        ) from error
    return grpc.dynamic_ssl_server_credentials(
        first,
        _Reader(files, stamps).changed,  # type: ignore[arg-type]  # None means unchanged, says grpc's docstring
        require_client_authentication=files.client_ca is not None,
    )


class _Reader:
    """Reads certificates again once they have changed; called by gRPC at each new connection."""

    def __init__(self, files: TlsFiles, stamps: Stamps) -> None:
        self._files = files
        self._stamps = stamps

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the certificates if they have changed and are valid."""
        try:
            stamps = self._files.stamps()
            if stamps == self._stamps:
                return None
            self._stamps = stamps  # an invalid change is logged once
            config = self._files.read()
        except OSError as error:
            log.error(
                "certificates_unreadable", problem=str(error), effect="the previous certificates stay in use"
            )
            return None
        log.info("certificates_read", cert=str(self._files.cert))
        return config


def _no_password() -> str:
    raise ssl.SSLError("the private key needs a password")
