"""The process of a daemon that is started on demand: its command, its log, and why it ended."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from mlrs.errors import UnavailableError
from mlrs.local.place import WAY_OUT, Place

TAKEN_STATUS = 75
"""The exit status of a daemon that ends because another one uses the data."""
OWN_VARIABLES = ("MLRS_", "NUMBA_", "OPENBLAS_", "PYTHON")
"""How the names of variables begin that are a script's own."""
KEPT_VARIABLES = (
    "NUMBA_CACHE_DIR",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONPYCACHEPREFIX",
    "PYTHONDONTWRITEBYTECODE",
)
"""Those among them that say where things are."""
MAX_LOG_BYTES = 10 * 2**20
"""The size from which a log is put aside at a start, in bytes."""
TAIL_LINES = 5
"""The last lines of the log that an error shows."""


def launched(place: Place) -> subprocess.Popen[bytes]:
    """Start a daemon as a process that outlives this one, and do not wait."""
    if not sys.executable:
        raise UnavailableError(f"no daemon can be started, as Python does not know its program: {WAY_OUT}")
    environment = {name: value for name, value in os.environ.items() if _is_for_all(name)}
    with suppress(OSError):
        place.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _opened_log(place.log) as log:
        try:
            process = subprocess.Popen(  # our own program
                [sys.executable, "-m", "mlrs_cli", "serve", "--local"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=place.folder,
                env=environment,
                start_new_session=True,  # Ctrl-C, and the end of this terminal, do not reach it
            )
        except OSError as error:
            raise UnavailableError(f"no daemon can be started: {error}; mend that, {WAY_OUT}") from error
    # A `Popen` that is collected while its process runs gives a ResourceWarning.
    _launches[:] = [process, *(earlier for earlier in _launches if earlier.poll() is None)]
    return process


def _is_for_all(name: str) -> bool:
    """Return whether an environment variable may reach the daemon.

    Settings of one script, such as `MLRS_STORE`, `NUMBA_DISABLE_JIT` or `PYTHONWARNINGS`, must not decide
    what the daemon of all the user's programs is, nor how it computes.
    """
    return name in KEPT_VARIABLES or not name.startswith(OWN_VARIABLES)


def _opened_log(path: Path) -> IO[bytes]:
    """Open the log to append to it; one that has grown large is put aside first."""
    try:
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
        return path.open("ab")
    except OSError:  # the daemon will say what is wrong with the folder
        return Path(os.devnull).open("ab")


def problem_of(process: subprocess.Popen[bytes], place: Place) -> str:
    """Return why a daemon did not start, in its own words if it has ended."""
    if process.poll() is None:
        return f"process {process.pid} does not answer yet, see {place.log}"
    said = ""
    if process.stdout is not None and process.returncode > 0:  # it was not killed
        os.set_blocking(process.stdout.fileno(), False)  # its own children may still hold the other end
        said = (process.stdout.read() or b"").decode(errors="replace").strip()
    return said or f"it ended with status {process.returncode}, and its log ends with: {_tail(place.log)}"


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return f"({error})"
    return " / ".join(lines[-TAIL_LINES:]) or "(nothing)"


_launches: list[subprocess.Popen[bytes]] = []
