"""A daemon that serves a folder of data for as long as the dashboard runs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

IDLE_S = 180
"""After how long without a call the daemon ends, in seconds; the dashboard calls it every minute, so this is
for the case that the dashboard was killed."""
END_S = 15.0
"""How long the daemon may take to end, in seconds."""
LISTENS = "mlrs is listening on "


class NotServedError(Exception):
    """No daemon could be started on a folder."""


@contextmanager
def served(data_dir: Path) -> Iterator[str]:
    """Run a daemon on a folder of data for the length of the block; yield its address.

    Raises:
        NotServedError: it does not start; the message has what it said.
    """
    with tempfile.TemporaryDirectory(prefix="mlrs-") as folder:
        command = [sys.executable, "-m", "mlrs_cli", "serve", "--listen", f"unix:{folder}/daemon.sock"]
        command += ["--data-dir", str(data_dir), "--exit-after-idle-s", str(IDLE_S), "--log-level", "warning"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLRS_")}
        log = Path(folder) / "daemon.log"
        with log.open("wb") as said:
            process = subprocess.Popen(  # noqa: S603  # our own program
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment,
                text=True,
                start_new_session=True,  # Ctrl-C is for the dashboard, which then ends it
            )
        try:
            yield _address(process, log)
        finally:
            _end(process)


def _address(process: subprocess.Popen[str], log: Path) -> str:
    """Return where a daemon listens, once it does."""
    line = process.stdout.readline() if process.stdout else ""
    if not line.startswith(LISTENS):
        status = process.wait()
        said = log.read_text(encoding="utf-8", errors="replace").strip().removeprefix("Error: ")
        raise NotServedError(said or f"the daemon ended with status {status}")
    return line.removeprefix(LISTENS).strip()


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        process.communicate(timeout=END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
