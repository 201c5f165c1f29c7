"""Atomic writes of files, and locks of their folders."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlrs_server.errors import AdvisorError, Reason


def write_atomically(path: Path, data: bytes, *, what: str) -> None:
    """Write a file atomically, readable by its owner only.

    Args:
        path: the file; its folder is created if missing.
        data: the content.
        what: the content of the folder, for the error message.

    Raises:
        AdvisorError: it cannot be written.
    """
    with _translated(path.parent, what):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # of mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextmanager
def changing(folder: Path, *, what: str) -> Iterator[None]:
    """Lock a folder, created if missing, so that no other process changes its files meanwhile.

    Raises:
        AdvisorError: the folder cannot be used.
    """
    with _translated(folder, what):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def _translated(folder: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AdvisorError(
            Reason.STORE,
            f"the folder of {what} {folder} cannot be written: {error.strerror or error}; "
            "free its disk, or let the daemon write there",
        ) from error
