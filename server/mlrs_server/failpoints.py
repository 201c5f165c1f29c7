"""Named points at which tests make the daemon fail; nothing happens there unless it is asked for.

For tests alone. The environment variable MLRS_FAILPOINT says, when the process starts, what happens where:

    journal.stored=kill         kill -9 where this point is reached
    journal.stored=kill:3       ... for the third time
    journal.store=error:2       a failing store, once, the second time
    store.commit=pause:0.5      a thread that stands still for half a second, each time

Several are separated by commas. Where the variable is not set, a point costs one look at an empty mapping.
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
    """What happens at a point."""

    action: str
    argument: float
    """At which time it happens, counted from 1; of a pause, how many seconds it takes."""
    reached: int = 0

    def happen(self, name: str) -> None:
        self.reached += 1
        if self.action == "pause":
            time.sleep(self.argument)
        elif self.reached == self.argument:
            if self.action == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise AdvisorError(Reason.STORE, f"the failpoint {name}, which {VARIABLE} asks for")


def parse(text: str) -> dict[str, _Failpoint]:
    """Return what a value of the variable asks for, by point.

    Raises:
        ValueError: it is malformed; the daemon must not run without what a test believes is there.
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
"""What was asked for when the process started."""


def reach(name: str) -> None:
    """Say that a point is reached.

    Raises:
        AdvisorError: this was asked for, with `Reason.STORE`.
    """
    if ARMED and (point := ARMED.get(name)):
        point.happen(name)
