"""The record of a run: in buckets, and as a file."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from mlrs.types import RecordChunk
from mlrs_web.daemons.daemon import Daemon
from mlrs_web.routes import answers
from mlrs_web.routes.asking import MOST_STEPS, asked, text, whole
from mlrs_web.views.plain import encoded
from mlrs_web.views.records import record

BUCKETS = 1000
MOST_BUCKETS = 4096
COLUMNS = "step,loss,learning_rate,reason\n"
NAME_CHARACTERS = 100


async def buckets(request: Request) -> Response:
    """Return a part of a record in buckets; one that did not change since is kept here."""
    id_, cursor = text(request, "id"), request.query_params.get("cursor", "")
    first = whole(request, "from", 0, 0, MOST_STEPS)
    end = whole(request, "to", None, 0, MOST_STEPS)
    count = whole(request, "buckets", BUCKETS, 1, MOST_BUCKETS)
    with asked(request) as daemon:

        async def read() -> bytes:
            async with daemon.reading() as advisor:
                summary = await advisor.summary(
                    id_, from_step=first or 0, to_step=end, max_buckets=count or BUCKETS, cursor=cursor
                )
            return encoded(record(summary))

        if cursor:  # of a run that goes on, mostly
            return answers.raw(await read())
        run = await daemon.advisor.get_run(id_)
        version = (
            daemon.saw(run),
            run.status,
            run.durable_step,
            run.create_time,
            run.note,
            tuple(run.tags.items()),
        )
        key = (daemon.key, "record", id_, version, first, end, count)
        return answers.raw(await daemon.cache.made(key, read))


async def export(request: Request) -> Response:
    """Return the whole record as CSV, as it is read from the daemon."""
    id_ = text(request, "id")
    with asked(request) as daemon:
        await daemon.advisor.get_run(id_)  # an answer that has begun cannot say that there is no such run
    headers = {"content-disposition": f'attachment; filename="{file_name(id_)}"'}
    return StreamingResponse(_lines(daemon, id_), media_type="text/csv; charset=utf-8", headers=headers)


def file_name(run_id: str) -> str:
    """Return a name for the file of a run that means the same to every system and browser."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", run_id).strip("._")[:NAME_CHARACTERS]
    return f"{safe or 'run'}.csv"


async def _lines(daemon: Daemon, run_id: str) -> AsyncIterator[str]:
    yield COLUMNS
    async for chunk in daemon.whole_record(run_id):
        yield _rows(chunk)


def _rows(chunk: RecordChunk) -> str:
    columns = zip(chunk.losses, chunk.learning_rates, chunk.reasons, strict=True)
    return "".join(
        f"{step},{loss!r},{rate!r},{reason.value}\n"
        for step, (loss, rate, reason) in enumerate(columns, chunk.first_step)
    )


ROUTES = [Route("/api/record", buckets), Route("/api/export", export)]
