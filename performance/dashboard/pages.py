"""What pages ask of the dashboard, without the browser: their requests, and the streams that they follow.

Several pages follow in a process of their own. As in a browser, what a page asks depends on the answers: the
record is read whole again when its buckets grow, and what belongs to the run every few seconds.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

import uvloop

from performance.dashboard.loops import SPAWN

LISTED, PICTURED = 100, 50
"""The runs that the list reads at first, and how many of them are on the screen and around it."""
BUCKETS = 1000
"""The buckets that a page asks a record in."""
DETAILS_S = 5.0
"""How often a page reads what belongs to its run, besides the record."""
MOST_BUCKETS = 2000
"""Beyond so many, a page reads a record again in coarser ones."""
READY_S = 60.0
"""How long pages may take until each has its first event."""


def record_query(run_id: str, **others: object) -> str:
    """Return what a page asks for a record, or a part of it."""
    return "/api/record?" + urlencode({"id": run_id, **others})


class Browser:
    """Requests over one connection, as a browser makes them one after the other."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60.0)
        self.received = 0
        """The bytes of all answers so far, without their headers."""

    def get(self, path: str) -> Any:
        """Return an answer."""
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        body = response.read()
        assert response.status == http.client.OK, body
        self.received += len(body)
        return json.loads(body)

    def list_runs(self) -> None:
        """Read what the page of the list shows at first: runs, pictures of some, and what filters offer."""
        self.get("/api/session")
        runs = self.get(f"/api/runs?order=created&size={LISTED}")["runs"]
        assert len(runs) == LISTED
        ids = [run["id"] for run in runs[:PICTURED]]
        samples = self.get("/api/samples?" + urlencode({"id": ids}, doseq=True))["samples"]
        assert samples.keys() == set(ids)
        self.get("/api/tasks")
        self.get("/api/models")

    def show_run(self, run_id: str, buckets: int = BUCKETS) -> int:
        """Read what the page of a run shows; return the points of its longest series."""
        self.get("/api/session")
        details = self.get("/api/run?" + urlencode({"id": run_id}))
        assert details["run"]["id"] == run_id
        record = self.get(record_query(run_id, buckets=buckets))
        points = len(record["loss"]["mean"])
        while record["has_more"]:
            record = self.get(record_query(run_id, cursor=record["cursor"]))
            points += len(record["loss"]["mean"])
        assert record["end_step"] == details["run"]["durable_step"] + 1
        return points

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


# ------------------------------------------------------------------------------ pages that are open


class Pages:
    """A process that opens pages, and closes them."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    @contextmanager
    def open(self, url: str, ids: Sequence[str]) -> Iterator[dict[str, int]]:
        """Have a page of each run follow it for the length of the block, from its first event on.

        What they received during it is in the dictionary after the block: events and bytes.
        """
        received = dict[str, int]()
        self._ask((url, list(ids)))
        try:
            yield received
        finally:
            received |= self._ask(None)

    def _ask(self, what: tuple[str, list[str]] | None) -> dict[str, int]:
        self._pipe.send(what)
        assert self._pipe.poll(READY_S), "the pages got no events"
        answer: dict[str, int] = self._pipe.recv()
        return answer


@contextmanager
def browsing() -> Iterator[Pages]:
    """Run the process that opens pages."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_browse, args=(theirs,), daemon=True)
    process.start()
    try:
        yield Pages(ours)
    finally:
        process.terminate()
        process.join()


def _browse(pipe: Any) -> None:
    async def followed(url: str, ids: list[str]) -> None:
        pages = [Page(url, run_id, DETAILS_S * index / len(ids)) for index, run_id in enumerate(ids)]
        tasks = [asyncio.create_task(page.follow()) for page in pages]
        all_began = asyncio.create_task(_all_began(pages))
        await asyncio.wait([*tasks, all_began], return_when=asyncio.FIRST_COMPLETED)
        for page in pages:
            page.events = page.received = 0
        pipe.send({})
        while not pipe.poll():
            await asyncio.sleep(0.05)
            for task in tasks:
                assert not task.done() or task.result()
        pipe.recv()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        figures = ("events", "received")
        pipe.send({name: sum(getattr(page, name) for page in pages) for name in figures})

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        while True:
            runner.run(followed(*pipe.recv()))


async def _all_began(pages: Sequence[Page]) -> None:
    for page in pages:
        await page.began.wait()


class Page:
    """A page that follows a run."""

    def __init__(self, url: str, run_id: str, opened_s: float) -> None:
        """Be a page that was opened so long ago, or as good as: pages are not all opened at once."""
        self._netloc = urlsplit(url).netloc
        self._opened_s = opened_s
        self._run_id = run_id
        self.began = asyncio.Event()
        self.events = self.received = 0
        """Events of the record, and bytes of answers without their headers."""

    async def follow(self) -> None:
        """Show the run, and follow it for ever."""
        details_at = await self._details() - self._opened_s
        while True:
            record = await self._get(record_query(self._run_id, buckets=BUCKETS))
            async with aclosing(self._records(record["cursor"])) as records:
                async for news in records:
                    self.began.set()
                    self.events += 1
                    if time.monotonic() > details_at + DETAILS_S:
                        details_at = await self._details()
                    if (news["end_step"] - record["first_step"]) // news["steps_per_bucket"] > MOST_BUCKETS:
                        break

    async def _details(self) -> float:
        await self._get("/api/run?" + urlencode({"id": self._run_id}))
        return time.monotonic()

    async def _get(self, path: str) -> Any:
        reader, writer = await self._request(path)
        body = await reader.read()
        writer.close()
        self.received += len(body)
        return json.loads(body)

    async def _records(self, cursor: str) -> AsyncGenerator[Any, None]:
        """Yield the records of a stream's events."""
        reader, writer = await self._request("/api/live?" + urlencode({"id": self._run_id, "cursor": cursor}))
        try:
            kind = b""
            while line := await reader.readline():
                self.received += len(line)
                if line.startswith(b"event: "):
                    kind = line[7:].strip()
                elif line.startswith(b"data: ") and kind == b"record":
                    yield json.loads(line[6:])
            raise EOFError("the stream has ended")
        finally:
            writer.close()

    async def _request(self, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Make a request of HTTP/1.0, whose answer ends with the connection; return it after its headers."""
        host, _, port = self._netloc.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=2**24)
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {self._netloc}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.partition(b"\r\n")[0], head
        return reader, writer
