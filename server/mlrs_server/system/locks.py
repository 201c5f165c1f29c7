"""Lock files: an exclusive right of one process, for as long as it lives."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class LockedError(Exception):
    """Another process holds the lock.

    Attributes:
        holder: its process id, or "unknown".
    """

    def __init__(self, holder: str) -> None:
        super().__init__(f"process {holder} holds the lock")
        self.holder = holder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, which is created if missing and contains the id of the process that holds it.

    The file is not removed: another process may have opened it already, to lock it next.

    Raises:
        LockedError: another process holds it.
        OSError: the file cannot be opened, or its file system does not support locks.
    """
    # Mode 0600: whoever can open the file can lock it. No symbolic link: it is written to, perhaps in /tmp.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(lock.read().strip() or "unknown") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
