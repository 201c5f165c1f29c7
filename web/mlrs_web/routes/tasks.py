"""Tasks, and what is remembered of them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlrs_web.routes import answers
from mlrs_web.routes.asking import asked, text
from mlrs_web.views import tasks

PAGE = 200


async def listing(request: Request) -> Response:
    """List tasks by name; the cursor is the last name of the page before."""
    after, found = request.query_params.get("cursor", ""), []
    with asked(request) as daemon:
        async for task in daemon.advisor.tasks():
            if task.name > after:
                found.append(task)
            if len(found) > PAGE:
                break
    cursor = found[PAGE - 1].name if len(found) > PAGE else None
    return answers.json({"tasks": [tasks.task(each) for each in found[:PAGE]], "cursor": cursor})


async def one(request: Request) -> Response:
    """Return what is remembered of a task."""
    with asked(request) as daemon:
        return answers.json(tasks.memory(await daemon.advisor.task(text(request, "name"))))


ROUTES = [Route("/api/tasks", listing), Route("/api/task", one)]
