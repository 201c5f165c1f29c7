"""The process of the dashboard: where it listens, and how it ends."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from mlrs_web.app import make_app
from mlrs_web.live.hub import Hub
from mlrs_web.security.exposure import check_exposure, is_any
from mlrs_web.settings import Settings

GRACE_S = 2
"""How long answers may take to be sent at the end, in seconds."""
MOST_REQUEST_LINE = 2**18
"""The longest request line with its headers, in bytes: a hundred ids of runs are longer than usual."""
MORE_CONNECTIONS = 200
"""Connections besides those of streams."""


class ListenError(Exception):
    """The dashboard cannot listen where it should."""


def serve(settings: Settings, ready: Callable[[str], object], *, parent: int | None = None) -> None:
    """Serve pages until SIGINT or SIGTERM.

    Args:
        settings: those of the dashboard.
        ready: is called with the URL once pages are served.
        parent: a file descriptor; when its other end is closed, the dashboard ends.

    Raises:
        ExposedError: other machines could reach the address, and it lacks what that needs.
        ListenError: it cannot listen there.
    """
    check_exposure(settings)
    # Each connection states its token; none takes that of the environment unasked.
    os.environ.pop("MLRS_TOKEN", None)
    with _bound(settings) as listener:
        host = "localhost" if is_any(settings.host) else settings.host
        shown = f"[{host}]" if ":" in host else host
        url = f"{settings.scheme}://{shown}:{listener.getsockname()[1]}"
        app, hub = make_app(settings)
        config = uvicorn.Config(
            app,
            lifespan="on",
            http="h11",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=MOST_REQUEST_LINE,
            limit_concurrency=settings.bounds.streams + MORE_CONNECTIONS,
            timeout_graceful_shutdown=GRACE_S,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
        )
        _Server(config, hub, lambda: ready(url), parent).run([listener])


class _Server(uvicorn.Server):
    """Ends with open streams, and with the process that started it."""

    def __init__(
        self, config: uvicorn.Config, hub: Hub, ready: Callable[[], object], parent: int | None
    ) -> None:
        super().__init__(config)
        self._hub = hub
        self._ready = ready
        self._parent = parent

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        if self._parent is not None:
            asyncio.get_running_loop().add_reader(self._parent, self._look_for, self._parent)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # uvicorn's signature
        """End; unlike in uvicorn, the signal is not raised again afterwards."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, which would not end by themselves, and then all else."""
        self._hub.close()
        await super().shutdown(sockets)

    def _look_for(self, parent: int) -> None:
        if not os.read(parent, 1024):
            asyncio.get_running_loop().remove_reader(parent)
            self.should_exit = True


def _bound(settings: Settings) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(
            settings.host or None, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        why = "another program listens there" if error.errno == errno.EADDRINUSE else str(error)
        raise ListenError(
            f"cannot listen on {settings.listen}: {why}; choose another address with --listen HOST:PORT, "
            "where port 0 picks a free one"
        ) from error
