"""The surroundings of a user of their own, whose daemon tests may start, kill and stop."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from mlrs.local.place import Place
from mlrs_server.system.locks import LockedError, locked


@dataclass
class Home:
    """Folders of a user, and the environment that names them."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    """Variables in place of this process's; an empty one is taken away."""

    def __post_init__(self) -> None:
        """Name the folders."""
        for name, variable in (("state", "XDG_STATE_HOME"), ("tmp", "TMPDIR"), ("home", "HOME")):
            (self.folder / name).mkdir()
            self.environment[variable] = str(self.folder / name)
        self.environment |= {
            "XDG_RUNTIME_DIR": "",
            "MLRS_TARGET": "",
            "MLRS_AUTOSTART": "1",
            "MLRS_QUIET": "",
        }

    @property
    def place(self) -> Place:
        """Where the user's daemon is, with the folders as they were made."""
        (data_dir,) = (self.folder / "state" / "mlrs" / "local").glob("*-v1") or [self.folder / "none"]
        return Place(self.folder / "tmp" / f"mlrs-{os.getuid()}" / "v1", data_dir)

    @property
    def holder(self) -> int | None:
        """The id of the process that uses the data. To look takes the lock for a moment."""
        file = self.place.data_dir / "daemon.lock"
        if not file.exists():
            return None
        try:
            with locked(file):
                return None
        except LockedError as error:
            return int(error.holder) if error.holder.isdigit() else None

    def started(
        self, script: str, *arguments: str, stdin: bool = False, **changes: str
    ) -> subprocess.Popen[str]:
        """Start a Python script as this user, with changes of the environment; `stdin`: with a pipe to it."""
        merged = {**os.environ, **self.environment, **changes}
        return subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdin=subprocess.PIPE if stdin else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in merged.items() if value},
        )

    def ran(self, script: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run a Python script as this user to its end."""
        process = self.started(script, *arguments, **changes)
        out, err = process.communicate(timeout=100)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `mlrs` as this user."""
        return self.ran("from mlrs_cli.__main__ import main; main()", *arguments)

    def kill_daemon(self, number: int = signal.SIGKILL) -> None:
        """Kill the user's daemon, if it runs, and wait for its end."""
        if (holder := self.holder) is None:
            return
        with suppress(ProcessLookupError):
            os.kill(holder, number)
        until = time.monotonic() + 30.0
        while self.holder == holder:
            assert time.monotonic() < until, "the daemon does not end"
            time.sleep(0.01)


@contextmanager
def new_home() -> Iterator[Home]:
    """Yield a user's surroundings, in a folder with a short name; their daemons are killed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="mlrs-"))
    home = Home(folder)
    try:
        yield home
    finally:
        _kill_all(folder)  # also one whose starter was killed, and that does not listen yet
        shutil.rmtree(folder, ignore_errors=True)


def _kill_all(folder: Path) -> None:
    """Kill the daemons whose environment names a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            is_daemon = b"mlrs_cli" in (process / "cmdline").read_bytes()
            if is_daemon and f"TMPDIR={folder}/".encode() in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
