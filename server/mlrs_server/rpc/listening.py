"""The address that a daemon listens on, looked at before gRPC is given it.

gRPC takes a unix socket away from whoever listens there, and says of an address that it cannot use only that
it cannot use it.
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
"""What the address of a socket in the file system begins with."""


@contextmanager
def claimed(listen: str) -> Iterator[None]:
    """Have an address for a daemon to listen on, and a unix socket's path to itself until the end.

    A socket that a killed daemon left behind is removed, and this daemon's own at the end.

    Args:
        listen: HOST:PORT, or unix:/PATH.

    Raises:
        AdvisorError: it cannot be listened on, or another process does.
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
        held.callback(path.unlink, missing_ok=True)  # gRPC does so, unless the start failed
        yield


def _free_path(path: Path, listen: str) -> None:
    """Remove a socket that nobody listens on, and see that one can be made."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a queue that is full is somebody's, too
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
        raise invalid_field("listen", f"cannot listen on {listen}: there is a file there; move it away")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.bind(str(path))
    path.unlink()


def _check_port(listen: str) -> None:
    """See that a host's addresses can be listened on: one of them, and none is taken."""
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
    """Bind a socket to an address for a moment; return what is wrong with it."""
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
