"""Secure access to a daemon: encryption, and the token that authenticates the caller."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from mlrs.errors import InvalidArgumentError, UnavailableError

TOKEN_VARIABLE = "MLRS_TOKEN"  # noqa: S105 # the name of one
"""The environment variable of the default token."""
MAX_TOKEN = 4096
"""The longest token, in characters."""
_WAY_OUT = "pass tls=True or TLS(...), or allow_insecure_token=True if the network can be trusted"


@dataclass(frozen=True, kw_only=True)
class TLS:
    """How connections are encrypted. The files, in PEM format, are read by `connect`."""

    ca_file: str | os.PathLike[str] | None = None
    """The certificates of trusted authorities. Default: the system's."""
    cert_file: str | os.PathLike[str] | None = None
    """This client's certificate with its chain, where the daemon requires one (mutual TLS)."""
    key_file: str | os.PathLike[str] | None = None
    """The private key of that certificate."""
    server_name: str | None = None
    """The name in the daemon's certificate, where it differs from the address."""


@dataclass(frozen=True)
class Access:
    """Credentials of channels and calls; made by `access_of`."""

    metadata: tuple[tuple[str, str], ...] | None = field(default=None, repr=False)
    """Sent with every call."""
    credentials: grpc.ChannelCredentials | None = field(default=None, repr=False)
    """The encryption of channels; `None`: none."""
    options: tuple[tuple[str, Any], ...] = ()
    """Options of channels, besides those of every channel."""
    allow_insecure_token: bool = False
    """Whether the token may be sent unencrypted."""

    def check_redirect(self, address: str) -> None:
        """Raise `UnavailableError` if the token would go unencrypted to an address that a daemon named."""
        if self._exposes_token(address):
            raise UnavailableError(
                f"a daemon names {address} as the owner of the run, and the token is not sent there in the"
                f" clear: {_WAY_OUT}"
            )

    def check(self, address: str) -> None:
        """Raise `InvalidArgumentError` if the token would go unencrypted to an address that the user gave."""
        if self._exposes_token(address):
            raise InvalidArgumentError(
                f"token would be sent to {address} in the clear: {_WAY_OUT}", field="token"
            )

    def _exposes_token(self, address: str) -> bool:
        return bool(
            self.metadata
            and self.credentials is None
            and not self.allow_insecure_token
            and not _stays_here(address)
        )


def access_of(addresses: Iterable[str], token: object, tls: object, *, allow_insecure_token: bool) -> Access:
    """Return the `Access` of a user's arguments; reads the files of `tls`."""
    if not isinstance(tls, (bool, TLS)) and tls is not None:
        raise InvalidArgumentError(f"tls must be True or a TLS(...); is {type(tls).__name__}", field="tls")
    checked = _token(token)
    settings = tls if isinstance(tls, TLS) else TLS() if tls else None
    options: tuple[tuple[str, Any], ...] = ()
    if settings is not None and settings.server_name is not None:
        options = (("grpc.ssl_target_name_override", settings.server_name),)
    access = Access(
        metadata=(("authorization", f"Bearer {checked}"),) if checked else None,
        credentials=None if settings is None else _credentials(settings),
        options=options,
        allow_insecure_token=bool(allow_insecure_token),
    )
    for address in addresses:
        access.check(address)
    return access


def _token(given: object) -> str | None:
    """Return the token, given or from the environment. No message shows it."""
    token, where = given, "token"
    if given is None:
        token, where = os.environ.get(TOKEN_VARIABLE) or None, TOKEN_VARIABLE
    if token is None:
        return None
    if not isinstance(token, str):
        raise InvalidArgumentError(f"{where} must be a string; is {type(token).__name__}", field="token")
    if not 1 <= len(token) <= MAX_TOKEN or any(not "!" <= character <= "~" for character in token):
        raise InvalidArgumentError(
            f"{where} must be 1 to {MAX_TOKEN} printable ASCII characters without spaces", field="token"
        )
    return token


def _credentials(tls: TLS) -> grpc.ChannelCredentials:
    if (tls.cert_file is None) != (tls.key_file is None):
        missing = "key_file" if tls.key_file is None else "cert_file"
        raise InvalidArgumentError(
            f"{missing} must be given, too: a certificate and its key go together", field=missing
        )
    return grpc.ssl_channel_credentials(
        root_certificates=_read("ca_file", tls.ca_file),
        private_key=_read("key_file", tls.key_file),
        certificate_chain=_read("cert_file", tls.cert_file),
    )


def _read(name: str, path: str | os.PathLike[str] | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except (OSError, TypeError, ValueError) as error:
        raise InvalidArgumentError(f"{name} cannot be read: {error}", field=name) from error
    if b"-----BEGIN " not in content:
        raise InvalidArgumentError(f"{name}, {os.fspath(path)!r}, is not in PEM format", field=name)
    return content


def _stays_here(address: str) -> bool:
    """Return whether an address is on this machine: loopback, or a unix socket."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
