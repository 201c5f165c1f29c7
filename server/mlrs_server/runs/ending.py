"""Finishing and deleting runs."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from mlrs_server.domain.ledger import RunStatus
from mlrs_server.errors import AdvisorError, Reason, invalid_field
from mlrs_server.failpoints import reach
from mlrs_server.live.live_runs import LiveRuns
from mlrs_server.live.stored_runs import StoredRuns, required
from mlrs_server.live.views import RunView
from mlrs_server.runs.changes import RunChanges, log_runs
from mlrs_server.runs.open_request import check_batch
from mlrs_server.runs.watchers import Watchers
from mlrs_server.storage import StoredRun

log = structlog.get_logger()


class RunEnding:
    """Finishes and deletes runs. Used from one event loop."""

    def __init__(self, live: LiveRuns, stored: StoredRuns, watchers: Watchers, changes: RunChanges) -> None:
        """End runs of `live` and `stored`, and notify `watchers`."""
        self._live = live
        self._stored = stored
        self._watchers = watchers
        self._changes = changes

    async def finish_many(self, run_ids: Sequence[str], next_steps: Sequence[int] = ()) -> list[RunView]:
        """Mark runs as finished, all or none, and store all of them; return them in the order of the ids.

        Args:
            run_ids: the ids of the runs.
            next_steps: the step that each run must have reached at least; empty for no such check.

        Raises:
            AdvisorError: there is no run of one of the ids, an id is given twice, a run lacks steps, or the
                store fails.
        """
        check_batch("run_ids", run_ids)
        if next_steps and len(next_steps) != len(run_ids):
            raise invalid_field(
                "next_steps", f"must be one for each run or none, are {len(next_steps)} for {len(run_ids)}"
            )
        return await self._changes.to_the_end(self._finish(run_ids, next_steps))

    async def _finish(self, run_ids: Sequence[str], next_steps: Sequence[int]) -> list[RunView]:
        async with self._live.locked(run_ids), self._stored.acquired(run_ids) as found:
            runs = [required(found, run_id) for run_id in run_ids]
            going = [run for run in runs if self._live.status(run) != RunStatus.FINISHED]
            for run, step in zip(runs, next_steps, strict=False):
                if run in going:
                    check_reached(run.run_id, self._live.next_step(run), step)
            if going:
                await self._end(going)
                runs = await self._stored.get_all(run_ids)
            return await self._stored.views(runs)

    async def _end(self, going: Sequence[StoredRun]) -> None:
        """Finish runs that are not finished; they take no observation from now on."""
        live = {run.run_id: slot for run in going if (slot := self._live.find(run.run_id))}
        before = {run_id: slot.status for run_id, slot in live.items()}
        for slot in live.values():
            slot.status = RunStatus.FINISHED
        try:
            await self._live.flush(live)
            reach("lifecycle.finish")
            await self._stored.in_store(lambda store: store.set_status(going, RunStatus.FINISHED))
            reach("lifecycle.finished")
        except BaseException:
            for run_id, slot in live.items():
                if self._live.find(run_id) is slot:  # otherwise another replica has acquired it meanwhile
                    slot.status = before[run_id]
            raise
        self._live.on_ranks(0, False)
        self._watchers.wake([run.run_id for run in going])
        log_runs("run_finished", "runs_finished", going, steps=self._live.next_step(going[0]))

    async def delete(self, run_id: str) -> None:
        """Delete a run and its record, damaged or not.

        Raises:
            AdvisorError: there is no such run, or the store fails.
        """
        await self._changes.to_the_end(self._delete(run_id))

    async def _delete(self, run_id: str) -> None:
        async with self._live.lock(run_id), self._stored.acquired_keys([run_id]) as keys:
            key = required(keys, run_id)
            with self._live.closed(run_id):
                await self._live.flush([run_id])
                with self._live.dropped_if_ambiguous(run_id):
                    await self._stored.in_store(lambda store: store.delete(key))
                    reach("lifecycle.deleted")
                self._live.drop(run_id)
            self._watchers.deleted(run_id)
            log.info("run_deleted", run_id=run_id)


def check_reached(run_id: str, at: int, step: int) -> None:
    """Check that a run expects a step, or a later one.

    Raises:
        AdvisorError: the run lacks steps before it.
    """
    if at < step:
        raise AdvisorError(
            Reason.STEP_AHEAD,
            f"next_step: run {run_id!r} expects step {at}, and was to be finished at {step}; what a daemon "
            "had answered and not stored may have been lost with it: send the steps again first",
            field="next_step",
            next_step=at,
        )
