"""Tasks, and what is remembered of them, as plain JSON."""

from __future__ import annotations

from typing import Any

from mlrs.types import Recalled, TaskInfo, TaskMemory
from mlrs_web.views.plain import plain


def task(info: TaskInfo) -> dict[str, Any]:
    """Return a task as lists show it."""
    fields: dict[str, Any] = plain(info)
    return fields


def memory(remembered: TaskMemory) -> dict[str, Any]:
    """Return what is remembered of a task, and what its next run would get."""
    return {
        "task": remembered.task.name,
        "remembered": remembered.task.runs,
        "measure": plain(remembered.measure),
        "runs": [
            {**plain(past), "measured": plain(past.measured(remembered.measure))} for past in remembered.runs
        ],
        "curve": plain(remembered.curve),
        "best": plain(remembered.best),
        "next": _recalled(remembered.next),
        "next_arm": plain(remembered.next_arm),
    }


def _recalled(decision: Recalled | None) -> dict[str, Any] | None:
    return None if decision is None else {**plain(decision), "sentence": str(decision)}
