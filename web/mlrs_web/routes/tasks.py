"""Tasks, and what is remembered of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlrs.types import TaskInfo
from mlrs_web.routes import answers
from mlrs_web.routes.asking import asked, text
from mlrs_web.views import tasks

MOST = 1000
"""The most tasks that are listed."""


async def listing(request: Request) -> Response:
    """List the first tasks by name, and say whether there are more."""
    with asked(request) as daemon:
        found, is_truncated = await first(daemon.advisor.tasks(), MOST)
    listed = [tasks.task(each) for each in found]
    return answers.json({"tasks": listed, "cursor": None, "truncated": is_truncated})


async def first(found: AsyncIterator[TaskInfo], most: int) -> tuple[list[TaskInfo], bool]:
    """Return so many tasks at most, and whether there are more."""
    taken: list[TaskInfo] = []
    async for task in found:
        if len(taken) == most:
            return taken, True
        taken.append(task)
    return taken, False


async def one(request: Request) -> Response:
    """Return what is remembered of a task."""
    with asked(request) as daemon:
        return answers.json(tasks.memory(await daemon.advisor.task(text(request, "name"))))


ROUTES = [Route("/api/tasks", listing), Route("/api/task", one)]
