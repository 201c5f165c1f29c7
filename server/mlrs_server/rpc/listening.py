"""Checks of the address that a daemon listens on, before gRPC binds it.

gRPC would replace a unix socket that another process listens on, and its error for an address that cannot be
bound gives no cause.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mlrs_server.errors import AdvisorError, invalid_field
from mlrs_server.system.locks import LockedError, locked

UNIX = "unix:"
"""The prefix of the address of a unix socket."""


@contextmanager
def claimed(listen: str) -> Iterator[None]:
    """Check that an address can be listened on; for a unix socket, lock its path for the length of the block.

    The socket that a killed daemon left behind is removed, and at the end this daemon's own.

    Args:
        listen: HOST:PORT, or unix:/PATH.

    Raises:
        AdvisorError: the address cannot be listened on, or another process listens there.
    """
    if not listen.startswith(UNIX):
        _check_port(listen)
        yield
        return
    path = Path(listen.removeprefix(UNIX))
    with ExitStack() as held:
        try:
            held.enter_context(locked(path.with_name(f"{path.name}.lock")))
            _free_path(path, listen)
        except LockedError as error:
            raise _taken(listen, f"another daemon (process {error.holder}) listens on {listen}") from error
        except OSError as error:
            raise _unusable(listen, error) from error
        held.callback(path.unlink, missing_ok=True)  # gRPC removes it unless the start failed
        yield


def _free_path(path: Path, listen: str) -> None:
    """Remove a socket that no process listens on, and check that a new one can be created."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a full queue also means that a process listens
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            pass
        except BlockingIOError:
            raise _taken(listen, f"another process listens on {listen}") from None
        else:
            raise _taken(listen, f"another process listens on {listen}")
    if path.is_socket():
        path.unlink()
    elif path.exists():
        raise invalid_field("listen", f"cannot listen on {listen}: a file is in the way; move it")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.bind(str(path))
    path.unlink()


def _check_port(listen: str) -> None:
    """Check that at least one of a host's addresses can be bound, and that none is in use."""
    host, _, port = listen.rpartition(":")
    kind, flags = socket.SOCK_STREAM, socket.AI_PASSIVE
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=kind, flags=flags)
    except OSError as error:
        raise _unusable(listen, error) from error
    problems = [problem for family, _, _, _, address in found if (problem := _try_to_bind(family, address))]
    taken = [problem for problem in problems if problem.errno == errno.EADDRINUSE]
    if taken or len(problems) == len(found):
        raise _unusable(listen, (taken or problems)[0])


def _try_to_bind(family: int, address: Any) -> OSError | None:
    """Bind a socket to an address and close it; return the error, if any."""
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None


def _taken(listen: str, by: str) -> AdvisorError:
    return invalid_field("listen", f"{by}; stop it, or choose another address than {listen} with --listen")


def _unusable(listen: str, error: OSError) -> AdvisorError:
    return invalid_field(
        "listen",
        f"cannot listen on {listen}: {error.strerror or error}; choose another address with --listen",
    )
