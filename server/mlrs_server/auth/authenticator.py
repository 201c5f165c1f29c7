"""Authentication and authorization of every call, by the token in its metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from mlrs_server.auth.limits import Limits, Usage
from mlrs_server.auth.principal import Caller, Principal, permission_denied, unauthenticated
from mlrs_server.auth.roles import ROLE_OF, Role
from mlrs_server.auth.token_store import TokenStore

Metadata = Iterable[tuple[str, str | bytes]]
SCHEME = "bearer "
"""The authentication scheme before a token; upper and lower case are the same."""
Reflection = Literal["auto", "on", "off"]
"""Who may use server reflection: `auto` is admins if calls need tokens and otherwise everybody; `on` is every
authenticated caller; `off` is nobody."""


class Authenticator:
    """Finds the caller of each call, and checks its role. Used from one event loop."""

    def __init__(
        self, tokens: TokenStore, limits_of: Callable[[str], Limits], *, reflection: Reflection
    ) -> None:
        """`limits_of` returns the limits of a tenant."""
        self._tokens = tokens
        self._limits_of = limits_of
        self._reflection = reflection
        self._usages: dict[str, Usage] = {}
        self._anonymous = Principal("", Role.ADMIN)

    def stream_count(self) -> int:
        """Return the number of open streams of all tenants. May be called on any thread."""
        return sum(usage.streams for usage in list(self._usages.values()))

    def admit(self, rpc: str, metadata: Metadata) -> Caller:
        """Return the caller of an RPC of the contract.

        Raises:
            AdvisorError: the call has no valid token, or its role may not call this RPC.
        """
        return self._admitted(rpc, ROLE_OF.get(rpc), metadata)

    def admit_reflection(self, metadata: Metadata) -> Caller:
        """Return the caller of a reflection RPC.

        Raises:
            AdvisorError: as for `admit`.
        """
        return self._admitted("reflection", Role.ADMIN if self._reflection == "auto" else Role.READ, metadata)

    def _admitted(self, what: str, role: Role | None, metadata: Metadata) -> Caller:
        principal = self._principal_of(metadata)
        if role is None or principal.role < role:
            raise permission_denied(what, role, principal.role)
        return Caller(principal, self._usage_of(principal.tenant))

    def _principal_of(self, metadata: Metadata) -> Principal:
        if not self._tokens.is_on:
            return self._anonymous
        self._anonymous.valid = False  # ends streams that began before tokens were required
        token = next((value for key, value in metadata if key == "authorization"), "")
        if not isinstance(token, str) or not token.lower().startswith(SCHEME):
            token = SCHEME
        principal = self._tokens.principal_of(token[len(SCHEME) :].strip())
        if principal is None:
            raise unauthenticated()
        return principal

    def _usage_of(self, tenant: str) -> Usage:
        usage = self._usages.get(tenant)
        if usage is None:
            usage = self._usages[tenant] = Usage(tenant, self._limits_of(tenant))
        return usage
