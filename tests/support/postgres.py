"""A PostgreSQL server of the tests' own, on a free port, in a temporary folder."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path

import psycopg
import pytest

USER, PASSWORD = "mlrs", "correct horse"
_QUICK = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "32MB"}
"""What a test that cuts no power can do without; killed, the server still loses nothing."""


def find_binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs: those on PATH, else the newest that Debian installed."""
    if (found := shutil.which("postgres")) and shutil.which("initdb"):
        return Path(found).parent
    installed = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    newest = max(installed, key=lambda path: int(re.sub(r"\D", "", path.parts[-3]) or 0), default=None)
    return newest.parent if newest else None


def postgres_or_skip() -> PostgresServer:
    """Return a running server; skip where there is no PostgreSQL, but in CI, which must have it."""
    if find_binaries() is None:
        why = "PostgreSQL is not installed: apt-get install postgresql"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    return PostgresServer()


class PostgresServer:
    """A server that can be stopped, restarted, killed and paused."""

    def __init__(self, *, durable: bool = False) -> None:
        """Make a cluster in a temporary folder and start its server; is it to survive a power cut?"""
        self._settings = {} if durable else _QUICK
        binaries = find_binaries()
        assert binaries is not None
        self._binaries = binaries
        self._folder = Path(tempfile.mkdtemp(prefix="mlrs-postgres-"))
        self._as_user: list[str] = []
        if os.getuid() == 0:  # which PostgreSQL refuses to run as
            owner = pwd.getpwnam("postgres")
            os.chown(self._folder, owner.pw_uid, owner.pw_gid)
            self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        self._data = self._folder / "data"
        self._log = self._folder / "log"
        self._names = count(1)
        self.port = _free_port()
        password = self._folder / "password"
        password.write_text(PASSWORD, encoding="utf-8")
        password.chmod(0o644)
        made = [binaries / "initdb", "-D", self._data, "-U", USER, "-A", "scram-sha-256", "--no-sync"]
        self._run(*made, "--pwfile", password, "-E", "UTF8", "--locale=C.UTF-8", "--no-instructions")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def _run(self, *command: Path | str) -> None:
        done = subprocess.run(
            [*self._as_user, *map(str, command)], cwd="/", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def url(self, database: str = "postgres", *, password: str = PASSWORD) -> str:
        """Return the URL of a database."""
        quoted = password.replace(" ", "%20")
        return f"postgresql://{USER}:{quoted}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make a database; return its URL."""
        name = f"test{next(self._names)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        settings = {
            **self._settings,
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
        }
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        dies_with_us = ["setpriv", "--pdeathsig=QUIT", *self._as_user[1:]]
        command = [*dies_with_us, str(self._binaries / "postgres"), "-D", str(self._data), *flags]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd="/", stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=2).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, self._log.read_text(encoding="utf-8")
                assert time.monotonic() < until, self._log.read_text(encoding="utf-8")
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Stop the server as an operator would in a hurry: clients are cut, all is stored."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Stop the server as if its machine went down, but for the disk."""
        self._end(signal.SIGQUIT)

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Have all its processes stand still: connections stay, and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Have them go on."""
        self._signal_all(signal.SIGCONT)

    def remove(self) -> None:
        """Stop it for good, and delete the cluster."""
        if self._process is not None:
            self.resume()
            self.kill()
        shutil.rmtree(self._folder)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for pid in [*map(int, children.read_text(encoding="utf-8").split()), self._process.pid]:
            os.kill(pid, number)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(60)
        self._process = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
