"""The caller of an RPC: its tenant, its role, and the use of its limits."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from mlrs_server.auth.limits import Usage
from mlrs_server.auth.roles import Role
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.tenancy import check_run_id, full_name, number_of


@dataclass(eq=False, slots=True)
class Principal:
    """The tenant and role that a token authenticates."""

    tenant: str
    role: Role
    valid: bool = True
    """Whether the token is still valid: streams check this at every message."""


class Caller:
    """The caller of one call."""

    __slots__ = ("_principal", "number", "role", "tenant", "usage")

    def __init__(self, principal: Principal, usage: Usage) -> None:
        """`usage` is that of the principal's tenant."""
        self.tenant = principal.tenant
        self.number = number_of(principal.tenant)
        """The tenant's number, for compiled code."""
        self.role = principal.role
        self.usage = usage
        self._principal = principal

    def full(self, run_id: str) -> str:
        """Return the full name (`tenancy.py`) of one of the caller's runs.

        Raises:
            AdvisorError: the id is malformed.
        """
        return full_name(self.tenant, check_run_id(run_id))

    async def message(self) -> None:
        """Admit a message: check the token, and delay the message if it exceeds the rate.

        Raises:
            AdvisorError: as for `check`, or the tenant sends too many messages.
        """
        self.check()
        if not self.usage.take():
            await self.usage.throttle()

    def check_role(self, role: Role, field: str) -> None:
        """Check that the caller has the role that a field of a message needs.

        Raises:
            AdvisorError: it does not.
        """
        if self.role < role:
            raise permission_denied(field, role, self.role)

    def check(self) -> None:
        """Check that the caller's token is still valid.

        Raises:
            AdvisorError: it was revoked, or has expired.
        """
        if not self._principal.valid:
            raise unauthenticated()


_current: ContextVar[Caller] = ContextVar("caller")


def set_caller(caller: Caller) -> None:
    """Set the caller of the current task; each call runs in a task of its own."""
    _current.set(caller)


def current_caller() -> Caller:
    """Return the caller of the call that the current task serves."""
    return _current.get()


def permission_denied(what: str, needed: Role | None, has: Role) -> AdvisorError:
    """Return the error for a call or field that needs a role; `None`: no role may use it."""
    return AdvisorError(
        Reason.PERMISSION_DENIED,
        f"authorization: {what} needs a token of the role "
        f"{needed.spelling if needed else 'none there is'}, this one has {has.spelling}; "
        "`mlrs tokens create --role` makes another",
        field="authorization",
    )


def unauthenticated() -> AdvisorError:
    """Return the error for a call without a valid token: the same whatever is wrong with the token."""
    return AdvisorError(
        Reason.UNAUTHENTICATED,
        "authorization: this daemon needs a token with every call, and this call has no valid one; send "
        "`authorization: Bearer TOKEN` (`mlrs tokens create` makes one)",
        field="authorization",
    )
