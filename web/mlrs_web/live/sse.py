"""Events of a follower as a response of server-sent events.

The format is three lines an event. `sse-starlette` has it too, and brings pings and an end of its own, by
patching uvicorn's handling of signals; here streams end because the hub ends them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, ExitStack

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from mlrs_web.live.follower import Event, Follower

RETRY_MS = 2000
"""The pause before a browser connects again, in milliseconds."""
PING_S = 15.0
"""How often a comment is sent when nothing else is, so that a broken connection is noticed, in seconds."""


async def response(following: AbstractContextManager[None], follower: Follower) -> StreamingResponse:
    """Return the stream of a follower, once its first poll was made.

    Args:
        following: lets the page follow for as long as it is entered.
        follower: the page.

    Raises:
        MlrsError: there is nothing to follow.
    """
    with ExitStack() as stack:
        stack.enter_context(following)
        await follower.begun
        held = stack.pop_all()
    return _Stream(_lines(follower), held)


class _Stream(StreamingResponse):
    """A stream that lets its follower go however it ends, also before it began."""

    def __init__(self, lines: AsyncIterator[bytes], held: ExitStack) -> None:
        super().__init__(lines, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream until it ends or the browser leaves."""
        with self._held:
            await super().__call__(scope, receive, send)


async def _lines(follower: Follower) -> AsyncIterator[bytes]:
    yield f"retry: {RETRY_MS}\n\n".encode()
    while (events := await follower.take(PING_S)) is not None:
        yield b"".join(map(_text, events)) or b": nothing new\n\n"


def _text(event: Event) -> bytes:
    id_ = f"id: {event.id}\n".encode() if event.id else b""
    return b"%bevent: %b\ndata: %b\n\n" % (id_, event.kind.encode(), event.data)
