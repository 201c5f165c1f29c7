"""Lists of runs, small pictures of them, and one run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlrs.aio import Advisor
from mlrs.errors import InvalidArgumentError, NoSearchError, NotBuiltError
from mlrs.types import RunInfo, Search
from mlrs_web.daemons.daemon import Daemon
from mlrs_web.routes import answers
from mlrs_web.routes.asking import Listing, asked, text
from mlrs_web.views import records, runs
from mlrs_web.views.plain import encoded

T = TypeVar("T")
MOST_SAMPLES = 100
"""The most runs that are sampled in one request."""


async def listing(request: Request) -> Response:
    """List runs."""
    with asked(request) as daemon:
        return answers.json(await Listing.of(request).read(daemon))


async def samples(request: Request) -> Response:
    """Return a few steps of each of some runs; those that did not go on since are kept here."""
    ids = list(dict.fromkeys(request.query_params.getlist("id")))
    if not 1 <= len(ids) <= MOST_SAMPLES:
        raise InvalidArgumentError(f"id must be given, at most {MOST_SAMPLES} times", field="id")
    with asked(request) as daemon:
        found = await _samples(daemon, ids)
    parts = [json.dumps(id_).encode() + b":" + sample for id_, sample in found.items()]
    return answers.raw(b'{"samples":{' + b",".join(parts) + b"}}")


async def _samples(daemon: Daemon, ids: Sequence[str]) -> dict[str, bytes]:
    """Return the samples of runs, encoded, by id; runs that do not exist are left out."""
    keys = {id_: (daemon.key, "sample", id_, daemon.version(id_)) for id_ in ids}
    found = {id_: kept for id_ in ids if (kept := daemon.cache.get(keys[id_])) is not None}
    if missing := [id_ for id_ in ids if id_ not in found]:
        async with daemon.reading() as advisor:
            read = await advisor.samples(missing)
        for id_, sample in read.items():
            found[id_] = encoded(records.sample(sample))
            if keys[id_][-1] is not None:
                daemon.cache.put(keys[id_], found[id_])
    return found


async def one(request: Request) -> Response:
    """Return a run, with what belongs to it."""
    id_ = text(request, "id")
    with asked(request) as daemon:
        advisor = daemon.advisor
        info = await advisor.get_run(id_)
        happened, search = await asyncio.gather(
            _unless(advisor.run_events(id_), (), NotBuiltError),
            _search(advisor, info),
        )
    daemon.saw(info)
    answer: dict[str, Any] = {
        "run": runs.run(info),
        "config": runs.config(info.config),
        "why": runs.why(info.config),
        "events": [runs.event(each) for each in happened],
        "search": None if search is None else runs.search(search),
        "ranks": None if info.ranks is None else runs.ranks(info.ranks),
    }
    return answers.json(answer)


async def _search(advisor: Advisor, info: RunInfo) -> Search | None:
    """Return the search of a run. One that has begun without any is not asked: the daemon counts refusals."""
    if info.next_step and info.config.found is None:
        return None
    return await _unless(advisor.get_search(info.id), None, NoSearchError, NotBuiltError)


async def _unless(call: Awaitable[T], otherwise: T, *kinds: type[Exception]) -> T:
    """Return the result of a call, or a value where it fails in one of these ways."""
    try:
        return await call
    except kinds:
        return otherwise


ROUTES = [
    Route("/api/runs", listing),
    Route("/api/samples", samples),
    Route("/api/run", one),
]
