"""Wiring of the parts: routes, and the security around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.types import ASGIApp

from mlrs_web.daemons.access import Access
from mlrs_web.live.hub import Hub
from mlrs_web.routes import health, models, pages, record, runs, session, streams, tasks
from mlrs_web.routes.answers import HANDLERS
from mlrs_web.security.headers import SecurityHeaders
from mlrs_web.security.hosts import AllowedHosts
from mlrs_web.security.origin import OwnPages
from mlrs_web.settings import Settings

TIDY_EVERY_S = 60.0
"""How often sessions and connections are ended that nobody uses, in seconds."""


def make_app(settings: Settings) -> tuple[ASGIApp, Hub]:
    """Return the dashboard, and the hub that ends its streams."""
    hub = Hub(settings.bounds.streams)
    access = Access(settings, ended=hub.end_session)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        tidying = asyncio.create_task(_tidy(access))
        try:
            yield
        finally:
            tidying.cancel()
            with suppress(asyncio.CancelledError):
                await tidying
            await access.close()

    parts = (pages, session, runs, record, tasks, models, health, streams)
    app = Starlette(
        routes=[route for part in parts for route in part.ROUTES],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    app.state.access, app.state.hub = access, hub
    # Around everything, as Starlette answers defects outside of its own middleware.
    return SecurityHeaders(AllowedHosts(OwnPages(app), settings)), hub


async def _tidy(access: Access) -> None:
    while True:
        await asyncio.sleep(TIDY_EVERY_S)
        await access.tidy()
