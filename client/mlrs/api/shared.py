"""`mlrs.run`: a run without an advisor in sight, of the connection that the process shares."""

from __future__ import annotations

import os
import threading
from typing import Unpack

from mlrs.api.advisor import Advisor, connect
from mlrs.api.run import Run
from mlrs.values.options import RunOptions


class _Shared:
    """The advisor of `mlrs.run`, made at the first call, and again in a forked child."""

    def __init__(self) -> None:
        self._advisor: Advisor | None = None
        self._process: int | None = None
        self._making = threading.Lock()

    def advisor(self) -> Advisor:
        """Return it."""
        with self._making:
            if self._advisor is None or self._process != os.getpid():
                self._advisor, self._process = connect(), os.getpid()
            return self._advisor

    def forget_lock(self) -> None:
        """Make a new lock: a child forked while another thread held the old one would wait forever."""
        self._making = threading.Lock()


_shared = _Shared()
if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
    os.register_at_fork(after_in_child=_shared.forget_lock)


def run(task: str, **options: Unpack[RunOptions]) -> Run:
    """Return a training run of the daemon that `connect()` finds: a new one, or that of the given `id`.

    All runs that a process makes this way share one connection, which is closed when Python exits.

    Args:
        task: the name of what is trained; see `Advisor.run`, also for the options.
        options: those of `Advisor.run`.

    Raises:
        MlrsError: as `connect` and `Advisor.run`.
    """
    return _shared.advisor().run(task, **options)
