"""A rate-limited log of calls that failed authentication or authorization."""

from __future__ import annotations

import time
from typing import Any

import grpc
import structlog

from mlrs_server.auth.tokens import TOKEN
from mlrs_server.errors import AdvisorError, Reason

log = structlog.get_logger()

LOGGED = frozenset({Reason.UNAUTHENTICATED, Reason.PERMISSION_DENIED})
"""The reasons that are logged."""
BURST = 10
"""The number of lines that may be logged without delay."""
EVERY_S = 10.0
"""The interval between lines after a burst: unauthenticated callers must not be able to fill the disk."""


class RefusalLog:
    """Logs refused calls, and counts those that it does not log. Used from one event loop."""

    def __init__(self) -> None:
        self._allowed = float(BURST)
        self._last = time.monotonic()
        self._unlogged = 0

    def note(self, error: AdvisorError, rpc: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Log a call that was refused for its caller's token or role; other refusals are not logged."""
        if error.reason not in LOGGED:
            return
        now = time.monotonic()
        self._allowed = min(self._allowed + (now - self._last) / EVERY_S, BURST)
        self._last = now
        if self._allowed < 1:
            self._unlogged += 1
            return
        self._allowed -= 1
        log.warning(
            "call_refused",
            reason=error.reason.name.lower(),
            rpc=rpc,
            peer=context.peer(),
            token_id=_token_id(context),
            unlogged_before=self._unlogged,
        )
        self._unlogged = 0


def _token_id(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """Return the id of a call's token, valid or not; `None` if it has none of the right format."""
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and isinstance(value, str) and (found := TOKEN.search(value)):
            return found[1]
    return None
