"""The names under which browsers may reach the dashboard.

A page of a stranger can have its name resolved to 127.0.0.1 (DNS rebinding), and then read what is served
there as its own. Its requests still carry its name, which is not an allowed one.
"""

from __future__ import annotations

import ipaddress
import re

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mlrs_web.security.exposure import is_any
from mlrs_web.settings import Settings

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


class AllowedHostError(ValueError):
    """An allowed host is none that a browser would name."""


def name_of(host_header: str) -> str:
    """Return the name in a `Host` header, in lower case, without port and brackets; "": it is malformed."""
    name, bracket, rest = host_header.strip().lower().rpartition("]")
    if bracket:  # [::1]:8265
        return name.removeprefix("[") if not rest or rest.startswith(":") else ""
    name, _, port = rest.partition(":")
    return name.rstrip(".") if not port or port.isdecimal() else ""


def allowed_names(settings: Settings) -> frozenset[str]:
    """Return the names of the settings, and of loopback. `*` among them allows every name.

    Raises:
        AllowedHostError: one of them is malformed.
    """
    given = {_given(name) for name in settings.allowed_hosts}
    own = set() if is_any(settings.host) else {settings.host.lower()}
    return LOOPBACK | given | own


def _given(host: str) -> str:
    name = name_of(host)
    if host == "*" or NAME.fullmatch(name) or _is_address(name):
        return "*" if host == "*" else name
    raise AllowedHostError(
        "--allowed-host must be a name as browsers show it, without https:// and without a path, such as "
        f"runs.acme.org, or [fd00::7]; is {host!r}"
    )


class AllowedHosts:
    """Refuses requests under any other name."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        """Raises `AllowedHostError`."""
        self._app = app
        self._names = allowed_names(settings)
        self._takes_addresses = is_any(settings.host)  # a stranger's name is never an address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 400 to a request under a name that is not allowed."""
        if scope["type"] == "http" and not self._allows(
            header := HTTPConnection(scope).headers.get("host", "")
        ):
            refusal = PlainTextResponse(
                f"This dashboard does not answer to the name {header!r}. If that is its name, start it with "
                "--allowed-host NAME.\n",
                status_code=400,
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _allows(self, header: str) -> bool:
        name = name_of(header)
        if name in self._names or "*" in self._names:
            return True
        return self._takes_addresses and _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
