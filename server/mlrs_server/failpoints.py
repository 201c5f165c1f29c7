"""Named points at which tests make the daemon fail; without a test's request they do nothing.

For tests only. The environment variable MLRS_FAILPOINT, read when the process starts, requests failures:

    journal.stored=kill         kill -9 where this point is reached
    journal.stored=kill:3       kill -9 where this point is reached for the third time
    journal.store=error:2       a store error, once, the second time
    store.commit=pause:0.5      a pause of the thread for half a second, each time

Several are separated by commas. Without the variable, a point costs one check of an empty mapping.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

from mlrs_server.errors import AdvisorError, Reason

VARIABLE = "MLRS_FAILPOINT"


@dataclass
class _Failpoint:
    """The failure at a point."""

    action: str
    argument: float
    """The count, from 1, at which it happens; the seconds of a pause."""
    reached: int = 0

    def happen(self, name: str) -> None:
        self.reached += 1
        if self.action == "pause":
            time.sleep(self.argument)
        elif self.reached == self.argument:
            if self.action == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise AdvisorError(Reason.STORE, f"the failpoint {name}, which {VARIABLE} requests")


def parse(text: str) -> dict[str, _Failpoint]:
    """Return the failures that a value of the variable requests, by point.

    Raises:
        ValueError: it is malformed; the daemon must not run without a failure that a test expects.
    """
    points = {}
    for part in filter(None, text.split(",")):
        name, _, what = part.partition("=")
        action, _, argument = what.partition(":")
        if not name or action not in {"kill", "error", "pause"} or (action == "pause" and not argument):
            raise ValueError(
                f"{VARIABLE}: must be NAME=kill[:TIME], error[:TIME] or pause:SECONDS, is {part!r}"
            )
        points[name] = _Failpoint(action, float(argument or 1))
    return points


ARMED = parse(os.environ.get(VARIABLE, ""))
"""The failures requested when the process started."""


def reach(name: str) -> None:
    """Run the failure of a point, if one was requested.

    Raises:
        AdvisorError: with `Reason.STORE`, if an error was requested.
    """
    if ARMED and (point := ARMED.get(name)):
        point.happen(name)
