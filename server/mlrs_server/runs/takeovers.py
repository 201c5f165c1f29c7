"""Takeovers of runs by another feeder: when they are allowed, and how old handles become stale."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from mlrs_server.domain.ledger import RunStatus
from mlrs_server.domain.run_events import RunEvent
from mlrs_server.errors import AdvisorError, other_feeder
from mlrs_server.failpoints import reach
from mlrs_server.live.live_runs import LiveRuns
from mlrs_server.live.stored_runs import StoredRuns
from mlrs_server.runs.changes import log_runs
from mlrs_server.runs.events import feeder_event
from mlrs_server.runs.feeders import Feeders
from mlrs_server.runs.open_request import OpenRequest
from mlrs_server.storage import RunKey, Store, StoredRun
from mlrs_server.tenancy import tenant_of


class Takeovers:
    """Makes the processes that open runs their feeders. Used from one event loop."""

    def __init__(self, live: LiveRuns, stored: StoredRuns, feeders: Feeders) -> None:
        """Take over runs of `live` and `stored`; `feeders` are the connected processes."""
        self._live = live
        self._stored = stored
        self._feeders = feeders

    def check(self, request: OpenRequest, run: RunKey) -> None:
        """Check that a process which joins a run again does not take it from another connected process.

        Raises:
            AdvisorError: the run has a feeder that is connected.
        """
        joins = request.mode == "resume" and request.resume_from is None
        tenant = tenant_of(run.run_id)
        if joins and request.changes_feeder(run) and self._feeders.is_expected(tenant, run.feeder):
            raise other_feeder(run.run_id)

    def from_connected(self, requests: Sequence[OpenRequest], found: Mapping[str, RunKey]) -> set[str]:
        """Return the ids of the runs that requests take from connected feeders."""
        return {
            run.run_id
            for request in requests
            if (run := found.get(request.run_id)) is not None
            and request.changes_feeder(run)
            and run.status != RunStatus.FINISHED  # such a run takes no observations
            and self._feeders.is_connected(tenant_of(run.run_id), run.feeder)
        }

    async def take(
        self, opened: Sequence[tuple[OpenRequest, StoredRun]], taken_over: Collection[str]
    ) -> None:
        """Make the processes that open runs their feeders; the old feeders' handles become stale.

        Args:
            opened: the runs.
            taken_over: the ids of those whose old feeders are connected.

        Raises:
            AdvisorError: the store fails; the runs of some feeders may have been taken over.
        """
        by_feeder: dict[str, list[StoredRun]] = {}
        for request, run in opened:
            if request.changes_feeder(run):
                by_feeder.setdefault(request.feeder, []).append(run)
        for feeder, runs in by_feeder.items():
            events = [(run, self._event(run, taken_over)) for run in runs]
            try:
                await self._stored.in_store(partial(_set_feeder, runs, feeder, events))
                reach("lifecycle.taken")
            except BaseException as error:
                if not isinstance(error, AdvisorError) or error.ambiguous:  # the change may be stored
                    self._renew(runs)
                raise
            self._renew(runs)

    def _event(self, run: StoredRun, taken_over: Collection[str]) -> RunEvent | None:
        return feeder_event(self._live.next_step(run), was_connected=run.run_id in taken_over)

    def _renew(self, runs: Sequence[StoredRun]) -> None:
        """Make the handles of runs that had another feeder stale."""
        taken = [run for run in runs if run.feeder]
        for run in taken:
            self._live.renew(run.run_id)
        if taken:
            log_runs("run_taken_over", "runs_taken_over", taken)

    def note(self, request: OpenRequest) -> None:
        """Note that a run was opened, so that its feeder's stream is expected."""
        self._feeders.opened(tenant_of(request.run_id), request.feeder)


def _set_feeder(
    runs: Sequence[StoredRun], feeder: str, events: Sequence[tuple[RunKey, RunEvent | None]], store: Store
) -> None:
    store.set_feeder(runs, feeder, events)
