"""Streams of events: a run's record, a list of runs, the daemon's state."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlrs_web.daemons.daemon import Daemon
from mlrs_web.live import sse
from mlrs_web.live.follower import Follower
from mlrs_web.live.sources import Pace, Record, Whole
from mlrs_web.live.topic import Source, Topic
from mlrs_web.routes.asking import Listing, access_of, asked, hub_of, text
from mlrs_web.security.sessions import session_of
from mlrs_web.views import status
from mlrs_web.views.plain import encoded

RUN = Pace(first_s=1.0, most_s=5.0)
FINISHED = Pace(first_s=5.0, most_s=10.0)
LIST = Pace(first_s=2.0, most_s=5.0)
HEALTH = Pace(first_s=2.0, most_s=2.0)


async def run(request: Request) -> Response:
    """Stream what is new in a record, from a cursor on: that of the last event, or of the query."""
    id_ = text(request, "id")
    cursor = request.headers.get("last-event-id") or text(request, "cursor")
    with asked(request) as daemon:
        key = (daemon.key, "run", id_)
        return await _stream(request, daemon, key, lambda: Record(daemon, id_, RUN, FINISHED), cursor)


async def runs(request: Request) -> Response:
    """Stream the first page of a list whenever it changes."""
    listing = Listing.of(request)
    with asked(request) as daemon:

        async def read() -> bytes:
            return encoded(await listing.read(daemon))

        key = (daemon.key, "runs", listing)
        return await _stream(request, daemon, key, lambda: Whole("runs", read, LIST))


async def health(request: Request) -> Response:
    """Stream the daemon's state."""
    with asked(request) as daemon:

        async def read() -> bytes:
            return encoded(status.health(await daemon.advisor.status()))

        key = (daemon.key, "health")
        return await _stream(request, daemon, key, lambda: Whole("health", read, HEALTH))


async def _stream(
    request: Request, daemon: Daemon, key: Hashable, make: Callable[[], Source], cursor: str = ""
) -> Response:
    access, follower = access_of(request), Follower(cursor, session_of(request))

    def topic() -> Topic:
        return Topic(make(), lambda: access.refused(daemon))

    return await sse.response(hub_of(request).followed(key, topic, follower), follower)


ROUTES = [
    Route("/api/live", run),
    Route("/api/live-runs", runs),
    Route("/api/live-health", health),
]
