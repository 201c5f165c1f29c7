"""The settings of the dashboard, and the bounds of what it keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import mlrs

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What the dashboard keeps at most, whatever is asked of it."""

    cache_bytes: int = 64 * MIB
    """Answers of the daemon that are kept to be given again, in bytes."""
    streams: int = 200
    """Open streams of events, over all pages."""
    sessions: int = 256
    """Signed-in browsers; beyond it, the one that was idle longest is signed out."""
    session_idle_s: float = 12 * 3600.0
    """How long a browser stays signed in without a request, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the dashboard listens, and which daemon it shows."""

    target: tuple[str, ...] | None = None
    """The daemon's addresses. `None`: this user's daemon, which is started when it is needed."""
    address: str = ""
    """The daemon's address, as pages show it."""
    keeps_daemon: bool = False
    """Whether the daemon was started for the dashboard, and ends when nothing calls it."""
    token: str | None = field(default=None, repr=False)
    """The token of the dashboard itself. `None`: each browser signs in, if the daemon has tokens."""
    tls: mlrs.TLS | bool | None = None
    """How the connection to the daemon is encrypted."""
    listen: str = "127.0.0.1:8265"
    """Where pages are served, HOST:PORT; port 0 picks a free one."""
    allowed_hosts: tuple[str, ...] = ()
    """Names, besides those of loopback and the listening host, under which browsers may reach it."""
    tls_cert: Path | None = None
    """The certificate of the pages, as PEM. `None`: they are served without TLS."""
    tls_key: Path | None = None
    """Its private key, as PEM."""
    insecure: bool = False
    """Whether it may listen beyond this machine without TLS or without sign-in."""
    demo: bool = False
    """Whether the daemon has the recorded demo."""
    bounds: Bounds = field(default_factory=Bounds)
    """What is kept at most."""

    @property
    def host(self) -> str:
        """The host that it listens on, without brackets."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port that it listens on; 0: any."""
        return int(self.listen.rpartition(":")[2])

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return "https" if self.tls_cert else "http"

    @property
    def has_own_access(self) -> bool:
        """Whether the daemon lets the dashboard itself in, and so everyone who opens a page."""
        certificate = self.tls.cert_file if isinstance(self.tls, mlrs.TLS) else None
        return self.token is not None or certificate is not None
