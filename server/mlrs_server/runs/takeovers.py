"""Runs that go from one feeder to another: when they may, and what becomes of the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from mlrs_server.domain.ledger import RunStatus
from mlrs_server.errors import AdvisorError, other_feeder
from mlrs_server.failpoints import reach
from mlrs_server.live.live import LiveRuns
from mlrs_server.live.stored_runs import StoredRuns
from mlrs_server.runs.changes import log_runs
from mlrs_server.runs.feeders import Feeders
from mlrs_server.runs.opening import OpenRequest
from mlrs_server.storage import RunKey, Store, StoredRun
from mlrs_server.tenancy import tenant_of


class Takeovers:
    """Has the processes that open runs be their feeders. Used from one event loop."""

    def __init__(self, live: LiveRuns, stored: StoredRuns, feeders: Feeders) -> None:
        """`feeders` are the processes that are connected."""
        self._live = live
        self._stored = stored
        self._feeders = feeders

    def check(self, request: OpenRequest, run: RunKey) -> None:
        """Check that a process which joins a run again does not take it from another that is connected.

        Raises:
            AdvisorError: it would.
        """
        joins = request.mode == "resume" and request.resume_from is None
        tenant = tenant_of(run.run_id)
        if joins and request.changes_feeder(run) and self._feeders.is_expected(tenant, run.feeder):
            raise other_feeder(run.run_id)

    def from_connected(self, requests: Sequence[OpenRequest], found: Mapping[str, RunKey]) -> set[str]:
        """Return the ids of the runs, by id, that requests take from feeders that are connected."""
        return {
            run.run_id
            for request in requests
            if (run := found.get(request.run_id)) is not None
            and request.changes_feeder(run)
            and run.status != RunStatus.FINISHED  # nobody sends observations of such a run
            and self._feeders.is_connected(tenant_of(run.run_id), run.feeder)
        }

    async def take(self, opened: Sequence[tuple[OpenRequest, StoredRun]]) -> None:
        """Have the processes that open runs be their feeders; the handles of those before become stale.

        Raises:
            AdvisorError: the store fails; of several feeders, some may have got theirs.
        """
        by_feeder: dict[str, list[StoredRun]] = {}
        for request, run in opened:
            if request.changes_feeder(run):
                by_feeder.setdefault(request.feeder, []).append(run)
        for feeder, runs in by_feeder.items():
            try:
                await self._stored.in_store(partial(_set_feeder, runs, feeder))
                reach("lifecycle.taken")
            except BaseException as error:
                if not isinstance(error, AdvisorError) or error.ambiguous:  # the change may be stored
                    self._renew(runs)
                raise
            self._renew(runs)

    def _renew(self, runs: Sequence[StoredRun]) -> None:
        """Have the handles of runs that had another feeder become stale."""
        taken = [run for run in runs if run.feeder]
        for run in taken:
            self._live.renew(run.run_id)
        if taken:
            log_runs("run_taken_over", "runs_taken_over", taken)

    def note(self, request: OpenRequest) -> None:
        """Take note that a run was opened: its feeder's stream is to come."""
        self._feeders.opened(tenant_of(request.run_id), request.feeder)


def _set_feeder(runs: Sequence[StoredRun], feeder: str, store: Store) -> None:
    store.set_feeder(runs, feeder)
