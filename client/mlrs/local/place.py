"""Where the daemon of a user listens on this machine, and where it keeps its data."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlrs.errors import UnavailableError
from mlrs.local.file_systems import is_shared

CONTRACT = "v1"
"""The version of the contract: daemons of other versions have sockets and data of their own."""
MAX_SOCKET_PATH = 103 if sys.platform == "darwin" else 107
"""The longest path of a unix socket, in bytes."""
LASTING = Path("/var/tmp")  # noqa: S108 # the folder in it is checked to be this user's
"""The folder for data where the user has no state folder of this machine. It outlives a restart; many systems
remove what nobody has touched there for a month."""
WAY_OUT = "or start a daemon yourself (`mlrs serve`), and pass its address or set MLRS_TARGET"


@dataclass(frozen=True)
class Place:
    """The paths of a user's daemon."""

    folder: Path
    """The folder of the socket, which only the user can open; it is emptied when the machine starts."""
    data_dir: Path
    """The folder of its runs and models."""

    @property
    def socket(self) -> Path:
        """The path of the socket."""
        return self.folder / "daemon.sock"

    @property
    def address(self) -> str:
        """The address of the daemon."""
        return f"unix:{self.socket}"

    @property
    def start_lock(self) -> Path:
        """The file that is locked by the process that starts the daemon."""
        return self.folder / "start.lock"

    @property
    def dashboard(self) -> Path:
        """The file that a dashboard of the daemon locks, and where it writes its URL."""
        return self.folder / "dashboard.url"

    @property
    def address_file(self) -> Path:
        """The file where the daemon that uses the data writes its address."""
        return self.data_dir / "daemon.address"

    @property
    def log(self) -> Path:
        """The file of the log of a daemon that was started on demand."""
        return self.data_dir / "daemon.log"


def local_place() -> Place:
    """Return the place of this user's daemon; creates the folder of the socket.

    Raises:
        UnavailableError: there is no folder for the socket or the data, or it belongs to another user.
    """
    if not hasattr(os, "getuid") or not hasattr(socket, "AF_UNIX"):
        raise UnavailableError(f"no daemon can be started on demand on {sys.platform}: name one, {WAY_OUT}")
    return Place(_socket_folder(), _data_dir())


def _socket_folder() -> Path:
    """Return the folder of the socket: in the first folder for it that will do."""
    problems = []
    for base in _runtime_folders():
        folder = base / f"mlrs-{os.getuid()}" / CONTRACT
        length = len(os.fsencode(folder / "daemon.sock"))
        if length > MAX_SOCKET_PATH:
            problems.append(f"{folder}/daemon.sock has {length} bytes, {MAX_SOCKET_PATH} are possible")
        elif is_shared(base):
            problems.append(f"{base} is on a file system of several machines")
        elif problem := _closed_to_others(folder.parent) or _closed_to_others(folder):
            problems.append(problem)
        else:
            return folder
    raise UnavailableError(
        f"no folder for the socket of a daemon: {'; '.join(problems)}. Set XDG_RUNTIME_DIR or TMPDIR to a"
        f" short path on this machine, {WAY_OUT}"
    )


def _runtime_folders() -> Iterator[Path]:
    """Yield the folders in which the socket may be: the login session's, then those for temporary files."""
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    if Path(session).is_absolute() and Path(session).is_dir() and os.access(session, os.W_OK | os.X_OK):
        yield Path(session)
    yield Path(tempfile.gettempdir())
    if Path("/tmp").is_dir():  # noqa: S108 # the folder is checked to be this user's
        yield Path("/tmp")  # noqa: S108 # as above


def _closed_to_others(folder: Path) -> str:
    """Create a folder that only this user can open, or check it; return the problem, if there is one."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        return f"{folder} cannot be created ({error.strerror})"
    if not stat.S_ISDIR(found.st_mode):
        return f"{folder} is not a folder"
    if found.st_uid != os.getuid():
        return f"{folder} belongs to another user"
    if stat.S_IMODE(found.st_mode) & 0o077:
        return f"{folder} is open to other users (chmod 700 would close it)"
    return ""


def _data_dir() -> Path:
    """Return the folder of the data: in the user's state folder if that is of this machine, and writable."""
    host = re.sub(r"[^A-Za-z0-9.-]+", "_", socket.gethostname()) or "localhost"
    name = Path("mlrs", "local", f"{host}-{CONTRACT}")
    state = _state_folder()
    if state is not None and not is_shared(state / name) and _is_writable(state / name):
        return state / name
    own = LASTING / f"mlrs-{os.getuid()}"
    if problem := _closed_to_others(own):
        raise UnavailableError(
            f"no folder for the data of a daemon: {problem}. Set XDG_STATE_HOME, {WAY_OUT}"
        )
    return own / name


def _state_folder() -> Path | None:
    if (state := Path(os.environ.get("XDG_STATE_HOME", ""))).is_absolute():
        return state
    own = "~/Library/Application Support" if sys.platform == "darwin" else "~/.local/state"
    try:
        return Path(own).expanduser()
    except RuntimeError:  # the user has no home
        return None


def _is_writable(folder: Path) -> bool:
    """Return whether a folder exists, or can be created. A full disk counts: the daemon will say so."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return os.access(folder, os.W_OK | os.X_OK)
