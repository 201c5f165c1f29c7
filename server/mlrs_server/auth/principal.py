"""Who calls: a tenant, a role, and what is left of its limits."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from mlrs_server.auth.limits import Usage
from mlrs_server.auth.roles import Role
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.tenancy import check_run_id, full_name, number_of


@dataclass(eq=False, slots=True)
class Grant:
    """What a token gives, for as long as it does."""

    tenant: str
    role: Role
    good: bool = True
    """Whether it still does: streams look at this with every message."""


class Caller:
    """Who a call is from."""

    __slots__ = ("_grant", "number", "role", "tenant", "usage")

    def __init__(self, grant: Grant, usage: Usage) -> None:
        """`usage` is the tenant's."""
        self.tenant = grant.tenant
        self.number = number_of(grant.tenant)
        """The tenant's number, for compiled code."""
        self.role = grant.role
        self.usage = usage
        self._grant = grant

    def full(self, run_id: str) -> str:
        """Return the full name of the run that the caller calls so.

        Raises:
            AdvisorError: the id is malformed.
        """
        return full_name(self.tenant, check_run_id(run_id))

    async def message(self) -> None:
        """Take a message: look at the caller, and wait for the message's turn.

        Raises:
            AdvisorError: as `check`, or there are too many messages.
        """
        self.check()
        if not self.usage.take():
            await self.usage.turn()

    def check_role(self, role: Role, field: str) -> None:
        """Raise unless the caller has a role that a field of a message needs.

        Raises:
            AdvisorError: it has not.
        """
        if self.role < role:
            raise permission_denied(field, role, self.role)

    def check(self) -> None:
        """Raise if the caller is to be let go.

        Raises:
            AdvisorError: its token was revoked, or has expired.
        """
        if not self._grant.good:
            raise unauthenticated()


_current: ContextVar[Caller] = ContextVar("caller")


def set_caller(caller: Caller) -> None:
    """Make this the caller of whatever the task does from now on; each call is a task of its own."""
    _current.set(caller)


def current_caller() -> Caller:
    """Return who the call is from that this is done for."""
    return _current.get()


def permission_denied(what: str, needed: Role | None, has: Role) -> AdvisorError:
    """Return the error of something that needs another role; `None`: one that there is not."""
    return AdvisorError(
        Reason.PERMISSION_DENIED,
        f"authorization: {what} needs a token of the role "
        f"{needed.spelling if needed else 'none there is'}, this one has {has.spelling}; "
        "`mlrs tokens create --role` makes another",
        field="authorization",
    )


def unauthenticated() -> AdvisorError:
    """Return the error of a call without a good token: the same whatever is wrong with it."""
    return AdvisorError(
        Reason.UNAUTHENTICATED,
        "authorization: this daemon wants a token with every call, and this call has none that is good; send "
        "`authorization: Bearer TOKEN` (`mlrs tokens create` makes one)",
        field="authorization",
    )
