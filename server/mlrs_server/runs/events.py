"""The events of runs that opening them leads to."""

from __future__ import annotations

from mlrs_server.domain.run_events import RunEvent, RunEventKind
from mlrs_server.runs.open_request import OpenRequest


def rewound_event(at: int, step: int) -> RunEvent | None:
    """Return the event of a rewind from the step `at`; `None` for a finished run that only goes on there."""
    return RunEvent(kind=RunEventKind.REWOUND, step=step, from_step=at) if step < at else None


def feeder_event(next_step: int, *, was_connected: bool) -> RunEvent | None:
    """Return the event of another process that feeds a run; `None` for a run without observations."""
    if was_connected:
        return RunEvent(kind=RunEventKind.TAKEN_OVER, step=next_step)
    return RunEvent(kind=RunEventKind.RESUMED, step=next_step) if next_step else None


def fallback_event(request: OpenRequest, next_step: int) -> RunEvent | None:
    """Return the event of the steps that a client's fallback answered, if there are any.

    They may lie beyond the next step of the run: a daemon that died has lost its newest answers, whose
    observations come again once the run is open, and those of the steps of the fallback after them.
    """
    if (first := request.fallback_from) is None:
        return None
    count = next_step - first if request.fallback_steps is None else request.fallback_steps
    if count <= 0:
        return None
    return RunEvent(kind=RunEventKind.FALLBACK, step=first, count=count)
