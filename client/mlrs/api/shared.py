"""`mlrs.run`: a run without an advisor in sight, of the connection that the process shares."""

from __future__ import annotations

import logging
import os
import threading
from typing import Unpack

from mlrs.api.advisor import Advisor, connect, connect_later
from mlrs.api.run import Run
from mlrs.errors import UnavailableError
from mlrs.local.starting import NotStartableError
from mlrs.values.options import RunOptions

_logger = logging.getLogger("mlrs")


class _Shared:
    """The advisor of `mlrs.run`, made at the first call, and again in a forked child."""

    def __init__(self) -> None:
        self._advisor: Advisor | None = None
        self._process: int | None = None
        self._making = threading.Lock()

    def advisor(self, *, may_be_away: bool) -> Advisor:
        """Return it; `may_be_away`: also where the user's daemon does not start. That is tried again."""
        with self._making:
            if self._advisor is None or self._process != os.getpid():
                try:
                    self._advisor = connect()
                except NotStartableError:
                    raise
                except UnavailableError as error:
                    if not may_be_away:
                        raise
                    _logger.warning("%s", error)
                    self._advisor = connect_later()
                self._process = os.getpid()
            return self._advisor

    def forget_lock(self) -> None:
        """Make a new lock: a child forked while another thread held the old one would wait forever."""
        self._making = threading.Lock()


_shared = _Shared()
if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
    os.register_at_fork(after_in_child=_shared.forget_lock)


def run(task: str, *, advisor: Advisor | None = None, **options: Unpack[RunOptions]) -> Run:
    """Return a training run of the daemon that `connect()` finds: a new one, or that of the given `id`.

    All runs that a process makes this way share one connection, which is closed when Python exits. If the
    user's daemon does not start, that is logged, and what `on_unavailable` says happens when the run begins.

    Args:
        task: the name of what is trained; see `Advisor.run`, also for the options.
        advisor: a connection of your own, as an adapter may be given one; the same as `advisor.run(...)`.
            Default: the shared one.
        options: those of `Advisor.run`.

    Raises:
        MlrsError: as `connect` and `Advisor.run`.
    """
    if advisor is None:
        may_be_away = options.get("on_unavailable", "auto") != "error"
        advisor = _shared.advisor(may_be_away=may_be_away)
    return advisor.run(task, **options)
