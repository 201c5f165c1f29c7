"""Models, where aliases pointed, and which runs use a model."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlrs.errors import ModelNotFoundError, NotBuiltError
from mlrs_web.daemons.daemon import Daemon
from mlrs_web.routes import answers
from mlrs_web.routes.asking import asked, text
from mlrs_web.views import models, runs

RUNS = 20


async def listing(request: Request) -> Response:
    """List models."""
    with asked(request) as daemon:
        return answers.json({"models": [models.model(each) async for each in daemon.advisor.models()]})


async def one(request: Request) -> Response:
    """Return a model, the changes of the aliases that point at it, and the newest runs that use it."""
    with asked(request) as daemon:
        found = await daemon.advisor.model(text(request, "ref"))
        page = await daemon.advisor.run_page(size=RUNS, model=found.ref, order="recent")
        changes = {alias: await _changes(daemon, alias) for alias in (*found.aliases, found.name)}
    return answers.json(
        {
            "model": models.model(found),
            "changes": {alias: made for alias, made in changes.items() if made},
            "runs": [runs.run(each) for each in page.runs],
            "quality": models.quality(found),
        }
    )


async def _changes(daemon: Daemon, alias: str) -> list[object]:
    try:
        return [*models.changes(await daemon.advisor.alias_changes(alias))]
    except (ModelNotFoundError, NotBuiltError):  # the name is no alias; the daemon is of an older version
        return []


ROUTES = [Route("/api/models", listing), Route("/api/model", one)]
