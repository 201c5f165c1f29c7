"""The data folder, which one process has at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlrs_server.errors import AdvisorError, Reason

STORE_FILE = "mlrs.sqlite3"
"""The store in it, unless a server has it."""
ADDRESS_FILE = "daemon.address"
"""Where the daemon that has the folder listens, for commands that want something of the folder meanwhile."""


@contextmanager
def locked_folder(data_dir: Path) -> Iterator[None]:
    """Make the data folder and hold its lock: two daemons on one store would answer twice.

    Raises:
        AdvisorError: the folder cannot be written, or another daemon has it.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "daemon.lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise AdvisorError(
            Reason.STORE,
            f"data_dir: cannot use the folder {data_dir}: {error}; choose another with --data-dir",
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise AdvisorError(
                Reason.STORE,
                f"data_dir: another daemon (process {lock.read().strip() or 'unknown'}) uses {data_dir}; "
                "stop it, or choose another folder with --data-dir",
            ) from error
        lock.seek(0)
        lock.truncate()
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


@contextmanager
def address_file(data_dir: Path) -> Iterator[Callable[[str], object]]:
    """Yield what writes into the data folder where its daemon listens; at the end the file goes away."""
    file = data_dir / ADDRESS_FILE
    file.unlink(missing_ok=True)  # a daemon that was killed has left it
    try:
        yield lambda address: file.write_text(address, encoding="utf-8")
    finally:
        file.unlink(missing_ok=True)
