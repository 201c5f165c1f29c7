"""What routes share: the daemon of a request, and the values of its query."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from mlrs.errors import InvalidArgumentError, UnauthenticatedError
from mlrs.types import RunPage
from mlrs_web.daemons.access import Access
from mlrs_web.daemons.daemon import Daemon
from mlrs_web.live.hub import Hub
from mlrs_web.security.sessions import session_of
from mlrs_web.views import runs

PAGE = 50
MOST_PAGE = 200
MOST_STEPS = 2**53
ORDERS = ("recent", "created", "id")
FILTERS = ("contains", "status", "model", "task")


def access_of(request: Request) -> Access:
    """Return the connections."""
    access: Access = request.app.state.access
    return access


def hub_of(request: Request) -> Hub:
    """Return the topics that are followed."""
    hub: Hub = request.app.state.hub
    return hub


@contextmanager
def asked(request: Request) -> Iterator[Daemon]:
    """Yield the daemon as the request's browser may see it; sign it out where its token is refused.

    Raises:
        SignInError: it has to sign in first.
    """
    daemon = access_of(request).of(session_of(request))
    try:
        yield daemon
    except UnauthenticatedError:
        access_of(request).refused(daemon)
        raise


def text(request: Request, name: str) -> str:
    """Return a value of the query that has to be given.

    Raises:
        InvalidArgumentError: it is missing.
    """
    if not (value := request.query_params.get(name, "")):
        raise InvalidArgumentError(f"{name} is missing", field=name)
    return value


def whole(request: Request, name: str, default: int | None, low: int, high: int) -> int | None:
    """Return a whole number of the query.

    Raises:
        InvalidArgumentError: it is none, or out of range.
    """
    if not (value := request.query_params.get(name, "")):
        return default
    if not value.isdecimal() or not low <= (number := int(value[:20])) <= high:
        raise InvalidArgumentError(f"{name} must be a whole number, {low} to {high}", field=name)
    return number


@dataclass(frozen=True)
class Listing:
    """Which runs are listed, and in which order."""

    filters: tuple[tuple[str, str], ...]
    tags: tuple[tuple[str, str], ...]
    order: str
    size: int
    cursor: str

    @classmethod
    def of(cls, request: Request) -> Listing:
        """Return that of a request's query.

        Raises:
            InvalidArgumentError: a value of it is invalid.
        """
        query = request.query_params
        order = query.get("order") or ORDERS[0]
        if order not in ORDERS:
            raise InvalidArgumentError(f"order must be one of {', '.join(ORDERS)}", field="order")
        tags = [each.partition(":") for each in query.getlist("tag") if each]
        return cls(
            filters=tuple((name, query[name]) for name in FILTERS if query.get(name)),
            tags=tuple(sorted((name, value) for name, _, value in tags)),
            order=order,
            size=whole(request, "size", PAGE, 1, MOST_PAGE) or PAGE,
            cursor=query.get("cursor", ""),
        )

    async def read(self, daemon: Daemon) -> dict[str, Any]:
        """Return the page of runs as the daemon has it now."""
        chosen: dict[str, Any] = {**dict(self.filters), "tags": dict(self.tags) or None, "order": self.order}
        page: RunPage = await daemon.advisor.run_page(size=self.size, cursor=self.cursor, **chosen)
        for run in page.runs:
            daemon.saw(run)
        return {"runs": [runs.run(run) for run in page.runs], "cursor": page.cursor}
