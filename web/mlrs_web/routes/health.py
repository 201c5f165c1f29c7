"""How the daemon is."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlrs_web.routes import answers
from mlrs_web.routes.asking import asked
from mlrs_web.views import status


async def show(request: Request) -> Response:
    """Return the daemon's state."""
    with asked(request) as daemon:
        return answers.json(status.health(await daemon.advisor.status()))


ROUTES = [Route("/api/health", show)]
