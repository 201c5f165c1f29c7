"""The figures of a running daemon, in one place for whoever reports them: metrics, and `GetDaemonStatus`."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlrs_server.errors import Reason
from mlrs_server.live.journal import FlushFigures
from mlrs_server.live.live_runs import LiveRuns
from mlrs_server.ranks.reports import RankReducer
from mlrs_server.runs.watchers import Watchers
from mlrs_server.telemetry.counts import AdviceCounts
from mlrs_server.telemetry.health import StoreHealth
from mlrs_server.telemetry.latency import LatencyHistogram

DEFECT = "internal"
"""What calls that failed by a defect are counted under, beside the names of the reasons."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DaemonFigures:
    """Reads what the parts of a daemon count. May be used on any thread: it only reads numbers."""

    counts: AdviceCounts
    """Answers, refused entries and meta updates."""
    refused_calls: Counter[Reason | None]
    """The number of failed calls, by reason; `None` is a defect."""
    live: LiveRuns
    """The runs in memory, and the answers that wait to be stored."""
    watchers: Watchers
    """The followers of runs."""
    rank_reducer: RankReducer
    """The steps that ranks have reported, and not enough of them."""
    health: StoreHealth
    """Whether the store works."""
    engine_name: str
    """The engine of the store: `sqlite` or `postgresql`."""
    open_streams: Callable[[], int]
    """Returns the number of open calls that stream in any direction."""
    advice_streams: Callable[[], int]
    """Returns the number of open StreamAdvice calls."""

    def answers(self) -> dict[str, int]:
        """Return the number of answers to observations, by every reason."""
        return {reason.name.lower(): count for reason, count in self.counts.by_reason().items()}

    def refusals(self) -> dict[str, int]:
        """Return the number of calls and entries that failed, by every reason."""
        calls, entries = dict(self.refused_calls), dict(self.counts.refused)
        counts = {why.name.lower(): calls.get(why, 0) + entries.get(why, 0) for why in Reason}
        return {**counts, DEFECT: calls.get(None, 0)}

    @property
    def latency(self) -> LatencyHistogram:
        """How long messages of observations took."""
        return self.counts.latency

    @property
    def live_runs(self) -> int:
        """The number of runs in memory."""
        return self.live.count()

    @property
    def followers(self) -> int:
        """The number of open WatchRun calls."""
        return self.watchers.count()

    @property
    def unflushed(self) -> int:
        """The number of answers that are not stored yet."""
        return self.live.journal.unflushed

    @property
    def flushes(self) -> FlushFigures:
        """What is counted of flushes."""
        return self.live.journal.figures

    def since_flush_s(self) -> float:
        """Return the time in seconds since a flush stored something last, at first since the start."""
        return time.monotonic() - self.flushes.last


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes; 0 if the system does not report it."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    except (OSError, ValueError, IndexError):
        return 0
