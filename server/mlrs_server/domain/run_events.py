"""What happens to a run besides its observations."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class RunEventKind(enum.IntEnum):
    """What happened to a run. The numbers are those of the contract."""

    RESUMED = 1
    """A process opened it again."""
    REWOUND = 2
    """It was rewound from `from_step` to `step`."""
    TAKEN_OVER = 3
    """Another process took it over while its feeder was connected."""
    RESIZED = 4
    """The number of its ranks became `count`."""
    FALLBACK = 5
    """The training loop took `count` steps, the first of them `step`, at learning rates of the client's
    fallback."""


@dataclass(frozen=True, kw_only=True)
class RunEvent:
    """An event of a run, to be recorded."""

    kind: RunEventKind
    step: int
    """The step that it is about: the next one when it happened, or as the kind says."""
    from_step: int | None = None
    """As the kind says."""
    count: int | None = None
    """As the kind says."""


@dataclass(frozen=True, kw_only=True)
class RecordedEvent(RunEvent):
    """An event of a run, as recorded."""

    number: int
    """Its number in the run, from 1."""
    time: float
    """When it was recorded, in seconds since the epoch, UTC."""
