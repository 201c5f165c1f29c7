"""What a daemon reports of the ranks of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RankMisses:
    """How often a rank was missing."""

    rank: int
    """The rank."""
    steps: int
    """In how many steps."""


@dataclass(frozen=True, kw_only=True)
class RankStatus:
    """The ranks of a run at present."""

    world_size: int
    """The number of the run's ranks."""
    step: int
    """The step that they report."""
    reported: int
    """How many ranks have reported it; 0 before the first does."""
    missing: tuple[int, ...]
    """The ranks that have not, once one has reported; the lowest 100."""
    waiting_s: float | None
    """How many seconds the first of them has waited; `None`: none waits."""
    misses: tuple[RankMisses, ...]
    """Ranks that were missing when a step was answered without them, since the daemon has the run in memory;
    the 100 that were missing most often, those first."""
