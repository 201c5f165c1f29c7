"""Followers of runs: the step that each needs next, and the events that wake it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(eq=False)
class Watcher:
    """A follower of a run."""

    step: int
    """The step that it needs next."""
    rewound: bool = False
    """Whether the run was rewound since this was last reset."""
    gone: bool = False
    """Whether the run was deleted."""
    moved: bool = False
    """Whether another replica has the run now."""
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there may be new observations or meta updates."""


class Watchers:
    """The followers of all runs. Used from one event loop."""

    def __init__(self) -> None:
        self.draining = False
        """Whether followers must end once they have read what is stored."""
        self._of: dict[str, set[Watcher]] = {}

    @contextmanager
    def following(self, run_id: str, step: int) -> Iterator[Watcher]:
        """Follow a run from a step on."""
        watcher = Watcher(step)
        self._of.setdefault(run_id, set()).add(watcher)
        try:
            yield watcher
        finally:
            self._of[run_id].discard(watcher)
            if not self._of[run_id]:
                del self._of[run_id]

    def count(self) -> int:
        """Return the number of followers. May be called on any thread."""
        return sum(map(len, list(self._of.values())))

    def wake(self, run_ids: Iterable[str]) -> None:
        """Wake the followers of runs to read again."""
        if self._of:
            for run_id in run_ids:
                for watcher in self._of.get(run_id, ()):
                    watcher.grown.set()

    def rewound(self, run_id: str, step: int) -> None:
        """Make the followers of a run read its steps from `step` on again."""
        for watcher in self._of.get(run_id, ()):
            watcher.step = min(watcher.step, step)
            watcher.rewound = True

    def deleted(self, run_id: str) -> None:
        """Notify the followers of a run that it was deleted."""
        for watcher in self._of.get(run_id, ()):
            watcher.gone = True
        self.wake([run_id])

    def moved(self, run_ids: Iterable[str]) -> None:
        """Notify the followers of runs that another replica owns the runs now."""
        for run_id in run_ids:
            for watcher in self._of.get(run_id, ()):
                watcher.moved = True
            self.wake([run_id])

    def drain(self) -> None:
        """End every follower once it has read what is stored."""
        self.draining = True
        self.wake(list(self._of))
