"""Where the dashboard of this user's daemon is: a file beside the daemon's socket, locked while it runs.

The system releases the lock however the dashboard ends, so that nobody is sent to one that is gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import quote

from mlrs.local.place import Place

MAX_URL = 2048


@contextmanager
def told_url(place: Place, url: str) -> Iterator[None]:
    """Tell programs of this user the dashboard's URL for the length of the block.

    If another dashboard has told its own, that one stays.
    """
    import fcntl

    descriptor = -1
    with suppress(OSError):
        descriptor = os.open(place.dashboard, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, url.encode())
    try:
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def dashboard_url(place: Place) -> str | None:
    """Return the URL of the dashboard that shows this user's daemon now; `None`: none does."""
    import fcntl

    try:
        descriptor = os.open(place.dashboard, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # a dashboard has it
        url = os.read(descriptor, MAX_URL).decode(errors="replace")
        return url if url.startswith(("http://", "https://")) and url.isprintable() else None
    finally:
        os.close(descriptor)
    return None


def where_to_look(place: Place, run_id: str) -> str:
    """Return how to look at a run of this user's daemon: a URL where a dashboard runs, else a command."""
    if url := dashboard_url(place):
        return f"{url}/run?id={quote(run_id, safe='')}"
    return "mlrs dashboard"
