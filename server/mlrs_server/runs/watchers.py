"""Those who follow runs: what each wants next, and what wakes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(eq=False)
class Watcher:
    """A follower of a run."""

    step: int
    """The step it wants next."""
    rewound: bool = False
    """Whether the run was rewound since this was last unset."""
    gone: bool = False
    """Whether the run was deleted."""
    moved: bool = False
    """Whether another replica has the run now."""
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there may be news."""


class Watchers:
    """The followers of all runs. Used from one event loop."""

    def __init__(self) -> None:
        self.draining = False
        """Whether followers must go once they have what there is."""
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

    def wake(self, run_ids: Iterable[str]) -> None:
        """Tell the followers of runs that there may be news."""
        if self._of:
            for run_id in run_ids:
                for watcher in self._of.get(run_id, ()):
                    watcher.grown.set()

    def rewound(self, run_id: str, step: int) -> None:
        """Have the followers of a run want its steps from `step` on again."""
        for watcher in self._of.get(run_id, ()):
            watcher.step = min(watcher.step, step)
            watcher.rewound = True

    def deleted(self, run_id: str) -> None:
        """Tell the followers of a run that it is gone."""
        for watcher in self._of.get(run_id, ()):
            watcher.gone = True
        self.wake([run_id])

    def moved(self, run_ids: Iterable[str]) -> None:
        """Tell the followers of runs that another replica has them."""
        for run_id in run_ids:
            for watcher in self._of.get(run_id, ()):
                watcher.moved = True
            self.wake([run_id])

    def drain(self) -> None:
        """Let every follower go, once it has what there is."""
        self.draining = True
        self.wake(list(self._of))
