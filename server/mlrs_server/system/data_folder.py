"""The data folder, which one process uses at a time."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import structlog

from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.system.locks import LockedError, locked

log = structlog.get_logger()

STORE_FILE = "mlrs.sqlite3"
"""The name of the SQLite store in the folder."""
ADDRESS_FILE = "daemon.address"
"""The name of the file with the address of the daemon that uses the folder, for commands."""
LOG_FILE = "daemon.log"
"""The name of the log of a daemon that was started on demand."""
LOCK_FILE = "daemon.lock"
"""The name of the file that the daemon which uses the folder locks."""
OWN = (STORE_FILE, LOCK_FILE, LOG_FILE, ADDRESS_FILE, "models", "tokens.", ".new-")
"""Prefixes of the names of the daemon's own files."""


class FolderTakenError(AdvisorError):
    """Another process uses the data folder."""


@contextmanager
def locked_folder(data_dir: Path) -> Iterator[None]:
    """Create the data folder and hold its lock: two daemons on one store would answer twice.

    Raises:
        FolderTakenError: another daemon uses it.
        AdvisorError: the folder cannot be written.
    """
    with ExitStack() as held:
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            held.enter_context(locked(data_dir / LOCK_FILE))
            _close_to_others(data_dir)
        except LockedError as error:
            raise FolderTakenError(
                Reason.STORE,
                f"data_dir: another daemon (process {error.holder}) uses {data_dir}; "
                "stop it, or choose another folder with --data-dir",
            ) from error
        except OSError as error:
            raise AdvisorError(
                Reason.STORE,
                f"data_dir: cannot use the folder {data_dir}: {error}; choose another with --data-dir",
            ) from error
        yield


@contextmanager
def address_file(data_dir: Path) -> Iterator[Callable[[str], object]]:
    """Yield a function that writes the daemon's address into the data folder; remove the file at the end."""
    file = data_dir / ADDRESS_FILE
    file.unlink(missing_ok=True)  # left behind by a killed daemon
    try:
        yield lambda address: file.write_text(address, encoding="utf-8")
    finally:
        file.unlink(missing_ok=True)


def _close_to_others(data_dir: Path) -> None:
    """Remove others' access to a folder, if it holds the daemon's files only and is this user's; or warn."""
    mode = stat.S_IMODE(data_dir.stat().st_mode)
    if not mode & 0o077:
        return
    try:
        if all(path.name.startswith(OWN) for path in data_dir.iterdir()):
            data_dir.chmod(mode & 0o700)
            return
    except PermissionError:  # a volume that root owns and its group may use
        pass
    log.warning("data_dir_open", data_dir=str(data_dir), mode=f"{mode:04o}", advice="chmod 700, if it may be")
