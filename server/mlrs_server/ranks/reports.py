"""Rank reduction: the losses that all ranks of a run report for a step become one loss, and one advice.

A run has at most one pending barrier, at its next step. Once enough ranks have reported, their losses are
reduced to one, the engine answers it like any observation, and all ranks that wait get the same advice.
Reports are in memory only: clients send again what is not durable.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

import structlog

from mlrs_core.config import RankReduction
from mlrs_server.domain.extras import difference, none_sent
from mlrs_server.domain.handles import group_of
from mlrs_server.domain.ledger import AdviceReason, RunStatus
from mlrs_server.domain.observations import Entries
from mlrs_server.domain.rank_reduction import Report, extras_of, reduced
from mlrs_server.errors import (
    AdvisorError,
    Reason,
    draining,
    finished_run,
    invalid_field,
    stale_handle,
    stale_step,
    step_ahead,
)
from mlrs_server.live.answers import Answer
from mlrs_server.live.engine import Engine
from mlrs_server.live.live_runs import LiveRuns
from mlrs_server.live.recall import Recaller
from mlrs_server.ranks.barrier import Advised, Outcome, PendingBarrier, Waiting
from mlrs_server.ranks.status import RankStatus, rank_status

log = structlog.get_logger()

LONGEST_PROMISE_S = 1.0
"""How long an answer that lacks ranks is held back, at most, until it is stored."""


class RankReducer:
    """Reduces what the ranks of runs report, and has it answered. Used from one event loop."""

    def __init__(self, live: LiveRuns, engine: Engine, recaller: Recaller) -> None:
        """Reduce for the runs of `live`, which calls `reconcile` when a run closes or its ranks change."""
        self._live = live
        self._engine = engine
        self._recaller = recaller
        self._pending: dict[int, PendingBarrier] = {}  # by handle
        self._storing: set[asyncio.Task[None]] = set()
        self._draining = False
        live.on_ranks = self.reconcile

    @property
    def pending_barriers(self) -> int:
        """The number of steps that some ranks have reported, and not enough. May be read on any thread."""
        return len(self._pending)

    @property
    def ranks_waiting(self) -> int:
        """The number of ranks that wait at pending barriers. May be read on any thread."""
        return sum(barrier.ranks_waiting for barrier in list(self._pending.values()))

    def status(self, run_id: str) -> RankStatus | None:
        """Return the ranks of a run at present; `None`: it has none, or is not in memory."""
        live = self._live.find(run_id)
        if live is None:
            return None
        return rank_status(live, self._pending.get(live.handle), asyncio.get_running_loop().time())

    def drain(self) -> None:
        """Fail all calls that wait, and take no more reports."""
        self._draining = True
        for barrier in list(self._pending.values()):
            self._end(barrier, draining())

    def reconcile(self, handle: int, restarted: bool) -> None:  # noqa: FBT001  # of a callback
        """Update the pending barrier of a run that was closed or finished, or whose ranks changed.

        Args:
            handle: the handle that the run had; 0 means all runs.
            restarted: whether the run continues from a checkpoint. The reports of ranks whose streams have
                ended are then discarded, as they are from before it.
        """
        for barrier in list(self._pending.values()) if handle == 0 else [self._pending.get(handle)]:
            if barrier is not None:
                self._reconcile(barrier, restarted=restarted)

    def _reconcile(self, barrier: PendingBarrier, *, restarted: bool) -> None:
        record = barrier.group.records[barrier.row]
        if record["handle"] != barrier.handle:
            self._end(barrier, stale_handle())
            return
        if record["status"] == RunStatus.FINISHED:
            self._end(barrier, finished_run(barrier.run_id))
            return
        size = barrier.ranked.world_size
        for rank in list(barrier.reports):
            if rank >= size:
                barrier.drop(rank, _no_such_rank(rank, size))
            elif restarted and not barrier.waiting.get(rank):
                barrier.drop(rank)
        self._answer_if_due(barrier)

    # ------------------------------------------------------------------------------ messages

    async def reduce(self, answer: Answer, samples: Sequence[float], tenant: int) -> None:
        """Answer the entries of a message that are reports of ranks, in place, those of each run in order.

        Args:
            answer: the answer to the message.
            samples: the sample counts of its entries, (n,); empty means that all are 1.
            tenant: the number of the caller's tenant.

        Raises:
            AdvisorError: as many answers as are kept already wait to be stored.
        """
        runs: dict[int, list[int]] = {}
        handles = answer.entries.handles
        for index in sorted(answer.reports):
            runs.setdefault(int(handles[index]), []).append(index)
        chains = [self._reduce_run(answer, indexes, samples, tenant) for indexes in runs.values()]
        if len(chains) == 1:
            await chains[0]
            return
        # Concurrently: of two streams, each may begin with the run that the other ends with.
        for failure in await asyncio.gather(*chains, return_exceptions=True):
            if failure is not None:
                raise failure

    async def reduce_alone(self, answer: Answer, tenant: int) -> None:
        """Answer the only entry of a call that names no rank.

        Raises:
            AdvisorError: the run has several ranks.
        """
        entry = answer.entries.table[0]
        barrier = self._barrier_of(int(entry["handle"]), int(entry["step"]))
        if barrier is not None and barrier.ranked.world_size > 1:
            self._close_if_unused(barrier)
            raise invalid_field(
                "run_id",
                f"all {barrier.ranked.world_size} ranks of run {barrier.run_id!r} report, and "
                "Advise names no rank; use StreamAdvice, with `ranks`",
            )
        await self.reduce(answer, (), tenant)

    async def _reduce_run(
        self, answer: Answer, indexes: Sequence[int], samples: Sequence[float], tenant: int
    ) -> None:
        """Answer the entries of one run: all of a step together, and then those of the next step."""
        steps, left = answer.entries.steps, list(indexes)
        while left:
            together = 1
            while together < len(left) and steps[left[together]] == steps[left[0]]:
                together += 1
            await self._reduce_step(answer, left[:together], samples, tenant)
            left = left[together:]

    async def _reduce_step(
        self, answer: Answer, indexes: Sequence[int], samples: Sequence[float], tenant: int
    ) -> None:
        """Answer the entries of one step of a run: take all reports first, and only then wait."""
        entry = answer.entries.table[indexes[0]]
        barrier = self._barrier_of(int(entry["handle"]), int(entry["step"]))
        if barrier is None:
            await self._ask_again(answer, indexes, tenant)
            return
        waiting: dict[int, Waiting] = {}
        for index in indexes:
            rank, loss = int(answer.entries.table["rank"][index]), float(answer.entries.losses[index])
            try:
                extras = answer.entries.extras
                own = None if extras is None else extras[index]
                self._report(barrier, rank, Report(loss, samples[index] if samples else 1.0, own))
            except AdvisorError as error:
                answer.errors[index] = error
            else:
                waiting[index] = barrier.listen(rank)
        self._answer_if_due(barrier)
        try:
            for index, outcome in waiting.items():
                _fill(answer, index, await outcome)
        finally:
            barrier.forget(waiting.values())

    async def _ask_again(self, answer: Answer, indexes: Sequence[int], tenant: int) -> None:
        """Answer entries whose step is not the next: it was answered meanwhile, or is further ahead."""
        some = self._engine.answer_now(answer.entries.part(list(indexes)), tenant)
        await self._recaller.recall(some)
        answer.entries.table[list(indexes)] = some.entries.table
        answer.errors |= {indexes[position]: error for position, error in some.errors.items()}
        for position in some.reports:
            entry = some.entries.table[position]
            group = self._live.groups[group_of(int(entry["handle"]))]
            run_id = group.run_ids[int(entry["row"])]
            error = step_ahead(run_id, int(entry["step"]), int(entry["expected"]))
            answer.errors[indexes[position]] = draining() if self._draining else error

    # ----------------------------------------------------------------------------- barriers

    def _barrier_of(self, handle: int, number: int) -> PendingBarrier | None:
        """Return the barrier of a run's step, a new one if need be; `None` unless ranks report that step."""
        live = self._live.at(handle)
        if self._draining or live is None or live.status == RunStatus.FINISHED:
            return None
        record = live.group.records[live.row]
        if record["next_step"] != number or not record["reduces_ranks"]:
            return None
        barrier = self._pending.get(handle)
        if barrier is None:
            barrier = self._pending[handle] = PendingBarrier(handle, live.group, live.row, number)
        return barrier

    def _report(self, barrier: PendingBarrier, rank: int, report: Report) -> None:
        """Take the report of a rank; the same report again changes nothing."""
        size = barrier.ranked.world_size
        if rank >= size:
            raise _no_such_rank(rank, size)
        if not (report.samples > 0 and math.isfinite(report.samples)):
            raise invalid_field("sample_counts", f"must be finite and > 0, is {report.samples}")
        if (before := barrier.reports.get(rank)) is not None:
            if not report.repeats(before):
                raise _other_report(barrier, rank, before, report)
            return
        if not barrier.reports:
            loop, timeout_s = asyncio.get_running_loop(), barrier.ranked.config.straggler_timeout_s
            barrier.since = loop.time()
            if timeout_s is not None:
                barrier.timer = loop.call_later(timeout_s, self._time_out, barrier)
        barrier.reports[rank] = report

    def _time_out(self, barrier: PendingBarrier) -> None:
        barrier.late = True
        self.reconcile(barrier.handle, restarted=False)

    def _answer_if_due(self, barrier: PendingBarrier) -> None:
        """Have the step of a barrier answered if enough ranks have reported it."""
        reports = barrier.reports
        if self._pending.get(barrier.handle) is not barrier or not reports:
            self._close_if_unused(barrier)
            return
        ranked = barrier.ranked
        if len(reports) < ranked.least(late=barrier.late):
            return
        outcome = self._advise(barrier, reduced(reports, cast("RankReduction", ranked.config.reduction)))
        if len(reports) < ranked.world_size and isinstance(outcome, Advised):
            del self._pending[barrier.handle]
            barrier.group.note_misses(barrier.row, reports)
            task = asyncio.get_running_loop().create_task(self._resolve_stored(barrier, outcome))
            self._storing.add(task)
            task.add_done_callback(self._storing.discard)
        else:
            self._end(barrier, outcome)

    def _advise(self, barrier: PendingBarrier, loss: float) -> Outcome:
        """Have the engine answer the reduced loss of a step."""
        records, row = barrier.group.records, barrier.row
        records["reduces_ranks"][row] = 0
        try:
            tenant = int(records["tenant"][row])
            entries = Entries.of_one(barrier.handle, barrier.step, loss, extras=extras_of(barrier.reports))
            answer = self._engine.answer_now(entries, tenant)
        except AdvisorError as error:
            return error
        except Exception as error:  # a defect: every rank's call fails of it
            log.error("rank_reduction_failed", run_id=barrier.group.run_ids[row], exc_info=error)
            return error
        finally:
            records["reduces_ranks"][row] = 1
        if answer.errors:
            return answer.errors[0]
        entry = answer.entries.table[0]
        return Advised(
            float(entry["lr"]), int(entry["reason"]), int(entry["durable_step"]), len(barrier.reports)
        )

    async def _resolve_stored(self, barrier: PendingBarrier, advised: Advised) -> None:
        """Pass on an answer that lacks ranks once it is stored: reduced again, it might be of more ranks."""
        try:
            with suppress(AdvisorError, TimeoutError):
                await asyncio.wait_for(self._live.journal.flush(), LONGEST_PROMISE_S)
            record = barrier.group.records[barrier.row]
            if record["handle"] == barrier.handle:
                advised = advised._replace(durable_step=int(record["durable_step"]))
        finally:
            barrier.resolve(advised)

    def _end(self, barrier: PendingBarrier, outcome: Outcome) -> None:
        """Remove a barrier, and pass the outcome to the calls that wait at it."""
        if self._pending.get(barrier.handle) is barrier:
            del self._pending[barrier.handle]
        barrier.resolve(outcome)

    def _close_if_unused(self, barrier: PendingBarrier) -> None:
        """Remove a barrier that no rank has reported at."""
        if not barrier.reports:
            self._end(barrier, stale_handle())  # no call waits for it


def _fill(answer: Answer, index: int, outcome: Outcome) -> None:
    """Fill an entry with the outcome of its step; raise an error that is not about the entry alone."""
    if isinstance(outcome, Advised):
        entries = answer.entries
        entries.lrs[index], entries.reasons[index] = outcome.lr, outcome.reason
        entries.durable_steps[index] = outcome.durable_step
        answer.ranks_reported[index] = outcome.reported
        answer.plain += outcome.reason == AdviceReason.FRESH
    elif isinstance(outcome, AdvisorError) and outcome.reason != Reason.QUEUE_FULL:
        answer.errors[index] = outcome
    else:
        raise outcome


def _no_such_rank(rank: int, world_size: int) -> AdvisorError:
    return invalid_field(
        "ranks",
        f"must be below the run's world_size, {world_size}, is {rank}; to have more ranks, open the run with "
        "the world_size that it has now",
    )


def _other_report(barrier: PendingBarrier, rank: int, before: Report, now: Report) -> AdvisorError:
    error = stale_step(barrier.run_id, barrier.step, before.loss, barrier.step)
    how = f"with the loss {before.loss!r} of {before.samples:g} samples"
    if not now.agrees_with(before):
        recorded, sent = (none_sent(1)[0] if one.extras is None else one.extras for one in (before, now))
        how = difference(recorded, sent)
    return AdvisorError(
        Reason.STALE_STEP,
        f"step: rank {rank} has reported step {barrier.step} of run {barrier.run_id!r} before, "
        f"{how}. To report another, open the run with resume_from={barrier.step}",
        field=error.field,
        next_step=barrier.step,
    )
