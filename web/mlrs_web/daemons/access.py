"""Which daemon a request is about: the one that is connected to with the token of its browser."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import suppress

from mlrs.errors import MlrsError
from mlrs_web.daemons.cache import Cache
from mlrs_web.daemons.daemon import Daemon
from mlrs_web.security.exposure import must_sign_in
from mlrs_web.security.sessions import Sessions
from mlrs_web.settings import Settings

UNUSED_S = 600.0
"""How long a connection of a token that nobody is signed in with is kept, in seconds."""
NOTHING = "the daemon has no tokens: nothing to sign in to"
CLOSED = (
    "; as other machines can reach this dashboard, it shows nothing until there are (`mlrs tokens create`)"
)


class SignInError(Exception):
    """The browser has to sign in."""


class NoTokensError(Exception):
    """The daemon has no tokens, and lets everyone in who can reach it."""


class Access:
    """The connections to the daemon, by token, and the signed-in browsers.

    Attributes:
        settings: those of the dashboard.
        sessions: the signed-in browsers.
        cache: the answers that are kept, of all connections.
    """

    def __init__(self, settings: Settings, ended: Callable[[str], object] = lambda _: None) -> None:
        """`ended` is called with the id of each session that has ended."""
        self.settings = settings
        self.sessions = Sessions(settings.bounds, ended=ended)
        self.cache = Cache(settings.bounds.cache_bytes)
        self._must_sign_in = must_sign_in(settings)
        self._daemons: dict[str | None, Daemon] = {}
        self._keys = itertools.count()

    def own(self) -> Daemon:
        """Return the connection with the dashboard's own token, or without one."""
        return self._daemon(self.settings.token)

    def of(self, session_id: str | None) -> Daemon:
        """Return the connection of a browser.

        Raises:
            SignInError: browsers have to sign in, and this one has not.
        """
        token = self.sessions.token(session_id)
        if token is None and self._must_sign_in:
            raise SignInError("sign in with a token of the daemon")
        return self.own() if token is None else self._daemon(token)

    async def admit(self, token: str) -> str:
        """Sign a browser in; return the session's id.

        Raises:
            NoTokensError: the daemon takes any token, as it has none.
            MlrsError: the daemon does not accept the token, or does not answer.
        """
        daemon = self._daemon(token)
        try:
            await daemon.advisor.daemon()
            if not await self.anonymous().wants_token():
                raise NoTokensError(NOTHING + (CLOSED if self._must_sign_in else ""))
        except BaseException:
            if not self.sessions.has(token):
                await self._forget(daemon)
            raise
        return self.sessions.add(token)

    def anonymous(self) -> Daemon:
        """Return the connection without a token."""
        return self._daemon(None)

    def refused(self, daemon: Daemon) -> None:
        """Sign the browsers of a token out that the daemon does not accept any more."""
        if daemon.token is not None:
            self.sessions.remove_token(daemon.token)

    async def tidy(self) -> None:
        """End what nobody uses any more, sessions and connections; call a daemon that ends by itself."""
        self.sessions.drop_idle()
        if self.settings.keeps_daemon:
            with suppress(MlrsError):
                await self.own().advisor.daemon()
        before = time.monotonic() - UNUSED_S
        for daemon in list(self._daemons.values()):
            if daemon.used < before and not (daemon.token and self.sessions.has(daemon.token)):
                await self._forget(daemon)

    async def close(self) -> None:
        """Close all connections."""
        for daemon in list(self._daemons.values()):
            await self._forget(daemon)

    def _daemon(self, token: str | None) -> Daemon:
        if (daemon := self._daemons.get(token)) is None:
            daemon = Daemon(self.settings, token, next(self._keys), self.cache)
            self._daemons[token] = daemon
        return daemon

    async def _forget(self, daemon: Daemon) -> None:
        if self._daemons.pop(daemon.token, None) is daemon:
            await daemon.close()
