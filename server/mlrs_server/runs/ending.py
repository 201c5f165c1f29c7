"""Finishing and deleting runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog

from mlrs_core.memory import PastRun
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.errors import AdvisorError, Reason, invalid_field
from mlrs_server.failpoints import reach
from mlrs_server.live.live_runs import LiveRuns
from mlrs_server.live.stored_runs import StoredRuns, required
from mlrs_server.live.views import RunView
from mlrs_server.runs.changes import RunChanges, log_runs
from mlrs_server.runs.open_request import check_batch
from mlrs_server.runs.past import NOTHING_SAID, Outcome, ended
from mlrs_server.runs.remembering import TaskMemory
from mlrs_server.runs.watchers import Watchers
from mlrs_server.storage import Store, StoredRun

log = structlog.get_logger()


class RunEnding:
    """Finishes and deletes runs. Used from one event loop."""

    def __init__(
        self,
        live: LiveRuns,
        stored: StoredRuns,
        watchers: Watchers,
        changes: RunChanges,
        memory: TaskMemory,
    ) -> None:
        """End runs of `live` and `stored`, and notify `watchers`; `memory` keeps how they ended."""
        self._live = live
        self._stored = stored
        self._watchers = watchers
        self._changes = changes
        self._memory = memory

    async def finish_many(
        self, run_ids: Sequence[str], next_steps: Sequence[int] = (), outcomes: Sequence[Outcome] = ()
    ) -> list[RunView]:
        """Mark runs as finished, all or none, and store all of them; return them in the order of the ids.

        How they ended is stored with it, for the memory of their tasks. A run that is finished already takes
        a metric that it lacks, or another one.

        Args:
            run_ids: the ids of the runs.
            next_steps: the step that each run must have reached at least; empty for no such check.
            outcomes: what the caller says of how each run ended; empty: nothing.

        Raises:
            AdvisorError: there is no run of one of the ids, an id is given twice, a run lacks steps, or the
                store fails.
        """
        check_batch("run_ids", run_ids)
        for field, given in (("next_steps", next_steps), ("metrics", outcomes)):
            if given and len(given) != len(run_ids):
                raise invalid_field(
                    field, f"must be one for each run or none, are {len(given)} for {len(run_ids)}"
                )
        told = dict(zip(run_ids, outcomes or [NOTHING_SAID] * len(run_ids), strict=True))
        return await self._changes.to_the_end(self._finish(run_ids, next_steps, told))

    async def _finish(
        self, run_ids: Sequence[str], next_steps: Sequence[int], told: Mapping[str, Outcome]
    ) -> list[RunView]:
        async with self._live.locked(run_ids), self._stored.acquired(run_ids) as found:
            runs = [required(found, run_id) for run_id in run_ids]
            going = [run for run in runs if self._live.status(run) != RunStatus.FINISHED]
            for run, step in zip(runs, next_steps, strict=False):
                if run in going:
                    check_reached(run.run_id, self._live.next_step(run), step)
            if going:
                await self._end(going, told)
            late = [run for run in runs if run not in going and told[run.run_id].metric is not None]
            if late:
                await self._stored.in_store(lambda store: _measure_late(store, late, told))
            return await self._stored.views(await self._stored.get_all(run_ids) if going else runs)

    async def _end(self, going: Sequence[StoredRun], told: Mapping[str, Outcome]) -> None:
        """Finish runs that are not finished; they take no observation from now on."""
        live = {run.run_id: slot for run in going if (slot := self._live.find(run.run_id))}
        before = {run.run_id: self._live.status(run) for run in going}
        for slot in live.values():
            slot.status = RunStatus.FINISHED
        try:
            await self._live.flush(live)
            reach("lifecycle.finish")
            past = [
                (run, await self._ended(run, before[run.run_id], told[run.run_id]))
                for run in going
                if run.config.recalled is not None
            ]
            await self._stored.in_store(lambda store: store.finish(going, past))
            reach("lifecycle.finished")
        except BaseException:
            for run_id, slot in live.items():
                if self._live.find(run_id) is slot:  # otherwise another replica has acquired it meanwhile
                    slot.status = before[run_id]
            raise
        self._live.on_ranks(0, False)
        self._watchers.wake([run.run_id for run in going])
        log_runs("run_finished", "runs_finished", going, steps=self._live.next_step(going[0]))

    async def _ended(self, run: StoredRun, status: RunStatus, told: Outcome) -> PastRun:
        """Return how a run ended, whose answers are all stored; one at a time: others wait for the store."""

        def read(store: Store) -> PastRun:
            stored = store.get([run.run_id])[run.run_id]
            return ended(store, stored, status, told, at=time.time())

        return await self._stored.in_store(read)

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
                leaving = await self._memory.leaving([run_id])
                past = [one for each in leaving.values() for _, one in each.ended]
                with self._live.dropped_if_ambiguous(run_id):
                    await self._stored.in_store(lambda store: store.delete(key, *past))
                    reach("lifecycle.deleted")
                self._live.drop(run_id)
            self._watchers.deleted(run_id)
            log.info("run_deleted", run_id=run_id)


def _measure_late(store: Store, runs: Sequence[StoredRun], told: Mapping[str, Outcome]) -> None:
    """Store the metrics of runs that were finished before."""
    measured = list[tuple[StoredRun, PastRun]]()
    for run in runs:
        if (past := store.past_run(run)) is not None:
            said = told[run.run_id]
            better = replace(past, metric=said.metric, higher_is_better=said.higher_is_better)
            measured.append((run, better))
    store.finish([], measured)


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
