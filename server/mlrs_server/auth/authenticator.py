"""Who is let in: callers from tokens, for every call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from mlrs_server.auth.limits import Limits, Usage
from mlrs_server.auth.principal import Caller, Grant, permission_denied, unauthenticated
from mlrs_server.auth.roles import ROLE_OF, Role
from mlrs_server.auth.token_store import TokenBook

Metadata = Iterable[tuple[str, str | bytes]]
SCHEME = "bearer "
"""What comes before a token, in any case."""
Reflection = Literal["auto", "on", "off"]
"""Who may ask what the service offers: everybody without tokens and admins with them; any caller; nobody."""


class Gate:
    """Says who a call is from, and whether that caller may make it. Used from one event loop."""

    def __init__(
        self, book: TokenBook, limits_of: Callable[[str], Limits], *, reflection: Reflection
    ) -> None:
        """`limits_of` gives a tenant's limits."""
        self._book = book
        self._limits_of = limits_of
        self._reflection = reflection
        self._usages: dict[str, Usage] = {}
        self._nobody = Grant("", Role.ADMIN)

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return sum(usage.streams for usage in list(self._usages.values()))

    def admit(self, rpc: str, metadata: Metadata) -> Caller:
        """Return who calls an RPC of the service.

        Raises:
            AdvisorError: the call has no good token, or one that is not for this RPC.
        """
        return self._admitted(rpc, ROLE_OF.get(rpc), metadata)

    def admit_reflection(self, metadata: Metadata) -> Caller:
        """Return who asks what the service offers.

        Raises:
            AdvisorError: as `admit`.
        """
        return self._admitted(
            "reflection", Role.ADMIN if self._reflection == "auto" else Role.ADVISE, metadata
        )

    def _admitted(self, what: str, role: Role | None, metadata: Metadata) -> Caller:
        grant = self._grant_of(metadata)
        if role is None or grant.role < role:
            raise permission_denied(what, role, grant.role)
        return Caller(grant, self._usage_of(grant.tenant))

    def _grant_of(self, metadata: Metadata) -> Grant:
        if not self._book.is_on:
            return self._nobody
        self._nobody.good = False  # streams from before there were tokens end
        token = next((value for key, value in metadata if key == "authorization"), "")
        if not isinstance(token, str) or not token.lower().startswith(SCHEME):
            token = SCHEME
        grant = self._book.grant_of(token[len(SCHEME) :].strip())
        if grant is None:
            raise unauthenticated()
        return grant

    def _usage_of(self, tenant: str) -> Usage:
        usage = self._usages.get(tenant)
        if usage is None:
            usage = self._usages[tenant] = Usage(tenant, self._limits_of(tenant))
        return usage
