"""Which address a call goes to, and which one next after a failure, for threads and asyncio."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mlrs.errors import DeadlineExceededError, MlrsError, NotOwnerError, UnavailableError
from mlrs.protocol.addresses import Addresses
from mlrs.protocol.deadline import Backoff, Deadline
from mlrs.values.reasons import may_be_done

MAX_HOPS = 4
"""Redirects that are followed in a row; after them there is a pause, since no replica knows the owner yet."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One unary call."""

    method: str
    """The method of `AdvisorService`, `DaemonService`, `ModelService` or `TaskService`."""
    request: Any
    """The request message; for a client stream, a function that returns an iterator of messages."""
    read: Callable[[Any], T]
    """Converts the response."""

    def payload(self) -> Any:
        """Return the argument of the stub, a new iterator for each attempt."""
        return self.request() if callable(self.request) else self.request


@dataclass(frozen=True, slots=True)
class Attempt:
    """Make a call at an address."""

    address: str
    call: Call[Any]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next attempt."""

    timeout_s: float


Procedure = Generator["Attempt | Pause", Any, T]
"""Yields attempts and pauses; receives the result of each attempt, or its error; returns a T."""


class Route:
    """The addresses of one call: the present one, and after a failure the next.

    Attributes:
        address: the address to call now.
        may_be_done: whether a call is ambiguous: it failed here, and the daemon may have carried it out.
    """

    def __init__(self, addresses: Addresses, deadline: Deadline, home: str | None = None) -> None:
        """`home`: the address where the run was last."""
        self._addresses = addresses
        self._deadline = deadline
        self._backoff = Backoff()
        self._untried = addresses.in_order(home)
        self._redirect: NotOwnerError | None = None
        self._hops = 0
        self.may_be_done = False
        self.address = self._untried.pop(0)

    def limit_s(self) -> float:
        """Return how long to wait for the address."""
        return self._addresses.limit_s(self.address, self._deadline.left_s())

    def works(self) -> None:
        """Note that the address answered."""
        self._addresses.works(self.address)

    def failed(self, error: MlrsError) -> float:
        """Choose the next address after an error; return the pause before the next attempt, in seconds.

        Raises:
            MlrsError: the error itself, if no other address can help.
            UnavailableError: another replica owns the run and was unreachable until the deadline.
        """
        self.may_be_done = self.may_be_done or may_be_done(error)
        if isinstance(error, NotOwnerError):
            self._follow(error)
        elif isinstance(error, (UnavailableError, DeadlineExceededError)):
            timed_out = isinstance(error, DeadlineExceededError)
            self._addresses.fails(self.address, timed_out=timed_out)
        else:
            raise error
        if self._untried and self._deadline.left_s():
            self.address = self._untried.pop(0)
            return 0.0
        comes_back = self._addresses.is_revived and isinstance(error, UnavailableError)
        if self._redirect is None and not comes_back:
            raise error
        pause_s = self._backoff.next_s()
        if self._deadline.left_s() <= pause_s:
            raise error if self._redirect is None else _no_owner(self._redirect, error) from error
        self._hops = 0
        self._untried = self._addresses.in_order()
        self.address = self._untried.pop(0)
        return pause_s

    def _follow(self, redirect: NotOwnerError) -> None:
        self._addresses.lives(self.address)
        self._redirect = redirect
        self._hops += 1
        owner = redirect.owner
        if self._hops > MAX_HOPS:
            self._untried = []
        elif owner and owner != self.address and self._addresses.learn(owner):
            self._untried = [owner, *(other for other in self._untried if other != owner)]


def routed(call: Call[T], route: Route) -> Procedure[T]:
    """Make a call at the addresses of a route until one answers; the route then has that address."""
    while True:
        try:
            result: T = yield Attempt(route.address, call, route.limit_s())
        except MlrsError as error:
            pause_s = route.failed(error)
        else:
            route.works()
            return result
        if pause_s:
            yield Pause(pause_s)


def _no_owner(redirect: NotOwnerError, last: MlrsError) -> UnavailableError:
    owner = f"the replica at {redirect.owner}" if redirect.owner else "no replica that is known yet"
    return UnavailableError(
        f"the run is owned by {owner}, which could not be reached within the deadline ({last}); try again"
        " once a replica has taken it over, or raise timeout_s",
        reason=redirect.reason,
    )
