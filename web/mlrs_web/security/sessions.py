"""Signed-in browsers: a random id in a cookie stands for a token, which stays in memory here."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from mlrs_web.settings import Bounds

ID_BYTES = 32


def cookie_of(connection: HTTPConnection) -> str:
    """Return the name of the session's cookie, with the port: the ports of a host share their cookies."""
    return f"mlrs_session_{connection.scope['server'][1]}"


def session_of(connection: HTTPConnection) -> str | None:
    """Return the id of the session of a browser that asks, if it sent one."""
    return connection.cookies.get(cookie_of(connection))


@dataclass(slots=True)
class _Session:
    token: str = field(repr=False)
    used: float


class Sessions:
    """The tokens of signed-in browsers, by session id; the one that is used longest ago comes first."""

    def __init__(
        self,
        bounds: Bounds,
        clock: Callable[[], float] = time.monotonic,
        ended: Callable[[str], object] = lambda _: None,
    ) -> None:
        """`ended` is called with the id of each session that has ended, for whatever reason."""
        self._bounds = bounds
        self._clock = clock
        self._ended = ended
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def __len__(self) -> int:
        self.drop_idle()
        return len(self._sessions)

    def add(self, token: str) -> str:
        """Sign in with a token that the daemon accepts; return the session's id."""
        self.drop_idle()
        id_ = secrets.token_urlsafe(ID_BYTES)
        self._sessions[id_] = _Session(token, self._clock())
        while len(self._sessions) > self._bounds.sessions:
            self.remove(next(iter(self._sessions)))
        return id_

    def token(self, id_: str | None) -> str | None:
        """Return the token of a session, which counts as its use; `None`: there is no such session."""
        self.drop_idle()
        if id_ is None or id_ not in self._sessions:
            return None
        session = self._sessions[id_]
        session.used = self._clock()
        self._sessions.move_to_end(id_)
        return session.token

    def remove(self, id_: str | None) -> None:
        """Sign a browser out."""
        if id_ is not None and self._sessions.pop(id_, None) is not None:
            self._ended(id_)

    def remove_token(self, token: str) -> None:
        """Sign all browsers out that signed in with a token, which the daemon does not accept any more."""
        for id_ in [id_ for id_, session in self._sessions.items() if session.token == token]:
            self.remove(id_)

    def has(self, token: str) -> bool:
        """Return whether a browser is signed in with a token."""
        self.drop_idle()
        return any(session.token == token for session in self._sessions.values())

    def drop_idle(self) -> None:
        """Sign browsers out that were idle for too long; asking for a session does so, too."""
        oldest = self._clock() - self._bounds.session_idle_s
        while self._sessions and next(iter(self._sessions.values())).used < oldest:
            self.remove(next(iter(self._sessions)))
