"""The start of a user's daemon: one, whatever number of processes want it at once.

A process that finds no daemon takes the lock of the start (`flock`, which the system releases when the
process dies), looks again, starts one and waits until it answers. The daemon itself locks its data for as
long as it lives, so that a second one, started although the first is there, ends at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec

from mlrs.errors import UnavailableError
from mlrs.local.job import Job, job_of
from mlrs.local.launching import TAKEN_STATUS, launched, problem_of
from mlrs.local.place import WAY_OUT, Place
from mlrs.protocol.session import announce
from mlrs.transport.probe import answers


class NotStartableError(UnavailableError):
    """No daemon may be started here, or none can be: the user has to decide what else to do."""


START_S = 60.0
"""How long a start may take, in seconds: on a machine's first, machine code is made."""
TAKEN_S = 15.0
"""How long a start waits for another daemon to let go of the data, in seconds: one that ends takes ten."""
HEAD_START_S = 10.0
"""How long other ranks of a node wait for its first one to start the daemon, in seconds."""
ANSWER_S = 5.0
"""How long a daemon that listens may take to answer, in seconds."""
LOOK_EVERY_S = 0.02
"""How often is looked whether the daemon answers, in seconds."""
NEEDED = ("click", "grpc_health", "numba", "pydantic_settings", "sqlalchemy")
"""Packages of the extra `server`, by which it is recognized."""


def running_at(place: Place) -> str | None:
    """Return the address of the user's daemon; `None`: none answers.

    It may listen elsewhere than at the place: a login session without the runtime folder of another one
    started it, and it uses the same data.
    """
    for address in dict.fromkeys((place.address, _written_address(place))):
        if address and answers(address, ANSWER_S):
            return address
    return None


def _written_address(place: Place) -> str:
    """Return the address that the daemon which uses the data has written there; empty: none."""
    try:
        return place.address_file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def started_at(place: Place, *, within_s: float = START_S) -> str:
    """Return the address of the user's daemon, which is started if there is none.

    Args:
        place: where it listens, and keeps its data.
        within_s: how long that may take, in seconds.

    Raises:
        NotStartableError: none may be started here, or the packages are missing.
        UnavailableError: none could be started; the message says why.
    """
    job = job_of()
    _check_reachable(job)
    if address := running_at(place):
        return address
    _check_startable()
    until = time.monotonic() + within_s
    if job.local_rank and (address := _waited_for(place, min(until, time.monotonic() + HEAD_START_S))):
        return address
    with _locked_start(place, until) as has_lock:
        if address := running_at(place):
            return address
        if not has_lock:
            raise UnavailableError(
                f"another process has been starting a daemon for {within_s:g} s ({place.start_lock} is"
                f" locked); its log is {place.log}; end that process, {WAY_OUT}"
            )
        return _started(place, until)


def _check_reachable(job: Job) -> None:
    """Raise `UnavailableError` if not all processes of a job reach a daemon of this machine."""
    if job.spans_nodes:
        raise NotStartableError(
            "this job has processes on several machines, which cannot reach a daemon that is started on"
            " demand on one of them: start one that they all reach (`mlrs serve --listen HOST:PORT`), and"
            " pass its address or set MLRS_TARGET"
        )


def _check_startable() -> None:
    """Raise `UnavailableError` unless a daemon may and can be started here."""
    if os.environ.get("MLRS_AUTOSTART", "1") == "0":
        raise NotStartableError(
            f"no daemon runs, and MLRS_AUTOSTART=0 forbids to start one: unset it, {WAY_OUT}"
        )
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise NotStartableError(
            f"no daemon runs, and the packages to start one are not installed ({', '.join(missing)}):"
            f" pip install 'mlrs[server]', {WAY_OUT}"
        )


def _waited_for(place: Place, until: float) -> str | None:
    """Return the address of the daemon that another process starts; `None`: there is none in time."""
    while time.monotonic() < until:
        if address := running_at(place):
            return address
        time.sleep(LOOK_EVERY_S)
    return None


@contextmanager
def _locked_start(place: Place, until: float) -> Iterator[bool]:
    """Hold the lock of the start, or end early once a daemon answers; yield whether the lock is held.

    A forked child may hold a copy of another process's lock, so the daemon is looked for meanwhile.
    """
    import fcntl

    try:
        descriptor = os.open(place.start_lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UnavailableError(f"no daemon can be started: {error}; mend that, {WAY_OUT}") from error
    has_lock = False
    try:
        while not has_lock and time.monotonic() < until:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                has_lock = True
            if not has_lock:
                if running_at(place):
                    break
                time.sleep(LOOK_EVERY_S)
        yield has_lock
    finally:
        if has_lock:  # closing would not release it where a forked child has a copy of the descriptor
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _started(place: Place, until: float) -> str:
    """Start daemons until one answers, and return its address.

    The first may end at once because another one, which is ending, still holds the data.
    """
    announce(
        "mlrs: starting a daemon for this user, which ends when nobody uses it; the first time on a machine,"
        f" it compiles code for some seconds (log: {place.log})"
    )
    taken_until, pause_s = min(until, time.monotonic() + TAKEN_S), LOOK_EVERY_S
    while True:
        process = launched(place)
        while process.poll() is None and time.monotonic() < until:
            if address := running_at(place):
                return address
            time.sleep(LOOK_EVERY_S)
        if process.poll() != TAKEN_STATUS or time.monotonic() >= taken_until:
            break
        time.sleep(pause_s)
        pause_s *= 2
    if address := running_at(place):
        return address
    if process.poll() == TAKEN_STATUS:
        raise UnavailableError(
            "a daemon of this user runs that cannot be reached, since its socket was removed, as it is when a"
            f" login session ends: {problem_of(process, place)}. It ends with its last training; {WAY_OUT}"
        )
    raise UnavailableError(f"no daemon could be started: {problem_of(process, place)}; mend that, {WAY_OUT}")
