"""Where a daemon may listen: beyond this machine only with TLS and with authentication of callers."""

from __future__ import annotations

import ipaddress

from mlrs_server.errors import AdvisorError, Reason


def is_local(listen: str) -> bool:
    """Return whether only this machine can reach an address, HOST:PORT or unix:/PATH."""
    if listen.startswith("unix:"):
        return True
    host = listen.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may be any machine's
        return False


def check_exposure(
    listen: str, *, tls: bool, client_certificates: bool, tokens: bool, insecure: bool
) -> None:
    """Refuse an address that other machines can reach, unless TLS and authentication are on.

    Args:
        listen: the address, HOST:PORT or unix:/PATH.
        tls: whether the daemon speaks TLS.
        client_certificates: whether it requires certificates of its clients.
        tokens: whether calls need a token.
        insecure: whether the operator allows every address (`--insecure`).

    Raises:
        AdvisorError: other machines can reach the address, and TLS or authentication is missing.
    """
    if insecure or is_local(listen) or (tls and (tokens or client_certificates)):
        return
    missing = ([] if tls else ["TLS (--tls-cert and --tls-key)"]) + (
        [] if tokens or client_certificates else ["tokens (`mlrs tokens create`) or --tls-client-ca"]
    )
    raise AdvisorError(
        Reason.INVALID_FIELD,
        f"listen: other machines can reach {listen}, and this daemon lacks {' and '.join(missing)}. "
        "Set these up, or listen on 127.0.0.1 or a unix socket, or say --insecure if nobody else can reach "
        "that address",
        field="listen",
    )
