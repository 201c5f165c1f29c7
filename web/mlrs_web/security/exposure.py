"""Where the dashboard may listen: beyond this machine only with TLS, and with sign-in of each browser."""

from __future__ import annotations

import ipaddress

from mlrs_web.settings import Settings


class ExposedError(Exception):
    """Other machines could reach the dashboard, and it lacks what that needs."""


def is_local(host: str) -> bool:
    """Return whether only this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may be any machine's
        return False


def is_any(host: str) -> bool:
    """Return whether a host stands for all addresses of this machine."""
    try:
        return not host or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def check_exposure(settings: Settings) -> None:
    """Refuse an address that other machines can reach, unless TLS is on and browsers have to sign in.

    Raises:
        ExposedError: TLS is missing, or everyone who opens a page would use the dashboard's own token or
            client certificate.
    """
    if settings.insecure or is_local(settings.host):
        return
    missing = [] if settings.tls_cert else ["it lacks TLS (--tls-cert and --tls-key)"]
    if settings.has_own_access:
        missing.append(
            "everyone who opens it would use the token or client certificate that it was started with; "
            "start it without, so that each browser signs in with a token"
        )
    if missing:
        raise ExposedError(
            f"other machines can reach {settings.listen}, and {', and '.join(missing)}. Mend that, or listen "
            "on 127.0.0.1, or say --insecure if nobody else can reach that address"
        )


def must_sign_in(settings: Settings) -> bool:
    """Return whether browsers have to sign in even if the daemon has no tokens."""
    return not settings.insecure and not is_local(settings.host)
