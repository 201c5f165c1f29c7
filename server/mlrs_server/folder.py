"""The data folder, which one process has at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.locks import LockedError, locked

STORE_FILE = "mlrs.sqlite3"
"""The store in it, unless a server has it."""


@contextmanager
def locked_folder(data_dir: Path) -> Iterator[None]:
    """Make the data folder and hold its lock: two daemons on one store would answer twice.

    Raises:
        AdvisorError: the folder cannot be written, or another daemon has it.
    """
    with ExitStack() as held:
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(data_dir / "daemon.lock"))
        except LockedError as error:
            raise AdvisorError(
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
