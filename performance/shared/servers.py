"""The servers that are compared, each in a process of its own: the daemon as shipped, the bare echo."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from performance.shared import echo_server

ADVICE_METHOD = "/mlrs.v1.AdvisorService/StreamAdvice"
ECHO_METHOD = echo_server.METHOD
LOOPBACK = "127.0.0.1:0"
"""A free port."""
STOP_S = 30.0
"""How long a server may take to stop."""


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    name: str
    """`daemon`, `echo` or `dashboard`."""
    address: str
    method: str
    """The stream that it answers on; empty: none."""
    pid: int
    log: Path
    """What it writes to standard error."""

    def cpu_s(self) -> float:
        """Return the CPU seconds of all of its threads so far."""
        return cpu_s_of(self.pid)

    def rss_bytes(self) -> int:
        """Return the memory that it has in RAM."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()


def cpu_s_of(pid: int) -> float:
    """Return the CPU seconds of all threads of a process so far."""
    return time.clock_gettime(~pid << 3 | 2)  # the clock's number, as clock_getcpuclockid(3) has it


def daemon_command(data_dir: Path, listen: str = LOOPBACK) -> list[str]:
    """Return the command that starts a daemon."""
    return [sys.executable, "-m", "mlrs_cli", "serve", "--listen", listen, "--data-dir", str(data_dir)]


def echo_command(listen: str = LOOPBACK) -> list[str]:
    """Return the command that starts an echo."""
    return [sys.executable, str(Path(__file__).with_name("echo_server.py")), listen]


@contextmanager
def daemon(*arguments: str, unix: bool = False) -> Iterator[Server]:
    """Run a daemon with an empty data folder, on loopback or on a unix socket."""
    with tempfile.TemporaryDirectory(prefix="mlrs-bench-") as folder:
        home = Path(folder)
        command = [*daemon_command(home / "data", _listen(home, unix=unix)), *arguments]
        with _running("daemon", ADVICE_METHOD, command, home / "log") as server:
            yield server


@contextmanager
def echo(*, unix: bool = False) -> Iterator[Server]:
    """Run an echo, on loopback or on a unix socket."""
    with tempfile.TemporaryDirectory(prefix="mlrs-bench-") as folder:
        home = Path(folder)
        with _running("echo", ECHO_METHOD, echo_command(_listen(home, unix=unix)), home / "log") as server:
            yield server


@contextmanager
def dashboard(address: str) -> Iterator[Server]:
    """Run a dashboard of the daemon at an address; its own address is a URL."""
    with tempfile.TemporaryDirectory(prefix="mlrs-bench-") as folder:
        command = [sys.executable, "-m", "mlrs_cli", "dashboard", "--connect", address, "--listen", LOOPBACK]
        with _running("dashboard", "", command, Path(folder) / "log") as server:
            yield server


def _listen(home: Path, *, unix: bool) -> str:
    return f"unix:{home / 'socket'}" if unix else LOOPBACK


@contextmanager
def _running(name: str, method: str, command: list[str], log: Path) -> Iterator[Server]:
    """Run a server; yield it once its first line has said where it listens."""
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            yield Server(name, address_of(process, log), method, process.pid, log)
        finally:
            stop(process)


def address_of(process: subprocess.Popen[str], log: Path) -> str:
    """Wait until a server listens; return its address, which its first line ends with."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"a server did not start: {log.read_text(encoding='utf-8')}"
    return line.split()[-1]


def stop(process: subprocess.Popen[str]) -> None:
    """End a server, in good order if it can."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()


def allow_many_connections() -> None:
    """Let this process, and those that it starts from now on, open as many files as the system lets them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
