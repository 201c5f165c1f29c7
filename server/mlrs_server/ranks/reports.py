"""Runs whose ranks all report: what came in of the step that is open, and who waits for its advice.

Of a run only the next step is open. Once enough of its ranks have reported, their losses become one, which
goes through the engine as any observation does, and all who wait get the same advice. What was gathered is
in memory alone: clients send again what is not durable.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

import structlog

from mlrs_core.config import RankReduction
from mlrs_server.domain.entries import Entries
from mlrs_server.domain.handles import group_of
from mlrs_server.domain.ledger import AdviceReason, RunStatus
from mlrs_server.domain.rank_reduction import Report, reduced
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
from mlrs_server.live.live import LiveRuns
from mlrs_server.live.recall import Recaller
from mlrs_server.ranks.barrier import Advised, OpenStep, Outcome, Waiting

log = structlog.get_logger()

LONGEST_PROMISE_S = 1.0
"""How long those who wait for an answer without all ranks wait, at most, for it to be stored."""


class Gatherer:
    """Gathers what ranks report, and has it answered. Used from one event loop."""

    def __init__(self, live: LiveRuns, engine: Engine, recaller: Recaller) -> None:
        """Gather for these runs, which say when one closes, or its ranks change."""
        self._live = live
        self._engine = engine
        self._recaller = recaller
        self._open: dict[int, OpenStep] = {}  # by handle
        self._storing: set[asyncio.Task[None]] = set()
        self._draining = False
        live.on_ranks = self.look

    @property
    def open_steps(self) -> int:
        """How many runs have a step that some ranks have reported, and not enough; on any thread."""
        return len(self._open)

    @property
    def ranks_waiting(self) -> int:
        """How many ranks wait in such steps for the others; on any thread."""
        return sum(step.ranks_waiting for step in list(self._open.values()))

    def drain(self) -> None:
        """Let everybody who waits go, and take no more reports."""
        self._draining = True
        for step in list(self._open.values()):
            self._end(step, draining())

    def look(self, handle: int, restarted: bool) -> None:  # noqa: FBT001  # of a callback
        """See to the open step of a run that was closed or finished, or whose ranks have changed.

        Args:
            handle: what named the run; 0 is any number of runs, all to be seen to.
            restarted: whether the run goes on from a checkpoint: what ranks reported that are gone is of
                before.
        """
        for step in list(self._open.values()) if handle == 0 else [self._open.get(handle)]:
            if step is not None:
                self._look_at(step, restarted=restarted)

    def _look_at(self, step: OpenStep, *, restarted: bool) -> None:
        record = step.group.records[step.row]
        if record["handle"] != step.handle:
            self._end(step, stale_handle())
            return
        if record["status"] == RunStatus.FINISHED:
            self._end(step, finished_run(step.group.run_ids[step.row]))
            return
        size = step.ranked.world_size
        for rank in list(step.reports):
            if rank >= size:
                step.drop(rank, _no_such_rank(rank, size))
            elif restarted and not step.waiting.get(rank):
                step.drop(rank)
        self._answer_if_due(step)

    # ------------------------------------------------------------------------------ messages

    async def gather(self, answer: Answer, samples: Sequence[float], tenant: int) -> None:
        """Answer, in place, the entries of a message that wait for other ranks, a run's in their order.

        Args:
            answer: the message's.
            samples: its sample counts, one an entry; empty is all 1.
            tenant: the number of the caller's tenant.

        Raises:
            AdvisorError: more answers wait to be stored than are kept.
        """
        runs: dict[int, list[int]] = {}
        handles = answer.entries.handles
        for index in sorted(answer.reports):
            runs.setdefault(int(handles[index]), []).append(index)
        chains = [self._gather_run(answer, indexes, samples, tenant) for indexes in runs.values()]
        if len(chains) == 1:
            await chains[0]
            return
        # Each by itself: of two streams, each may have first what the other has last.
        for failure in await asyncio.gather(*chains, return_exceptions=True):
            if failure is not None:
                raise failure

    async def gather_alone(self, answer: Answer, tenant: int) -> None:
        """Answer the only entry of a call that says no rank.

        Raises:
            AdvisorError: the run has several ranks.
        """
        entry = answer.entries.table[0]
        step = self._open_step(int(entry["handle"]), int(entry["step"]))
        if step is not None and step.ranked.world_size > 1:
            self._close_if_unused(step)
            raise invalid_field(
                "run_id",
                f"all {step.ranked.world_size} ranks of run {step.group.run_ids[step.row]!r} report, and "
                "Advise says no rank; use StreamAdvice, with `ranks`",
            )
        await self.gather(answer, (), tenant)

    async def _gather_run(
        self, answer: Answer, indexes: Sequence[int], samples: Sequence[float], tenant: int
    ) -> None:
        """Answer entries of one run: all of a step together, and then those of the next."""
        steps, left = answer.entries.steps, list(indexes)
        while left:
            together = 1
            while together < len(left) and steps[left[together]] == steps[left[0]]:
                together += 1
            await self._gather_step(answer, left[:together], samples, tenant)
            left = left[together:]

    async def _gather_step(
        self, answer: Answer, indexes: Sequence[int], samples: Sequence[float], tenant: int
    ) -> None:
        """Answer entries of one step of a run: report them first, and only then wait."""
        entry = answer.entries.table[indexes[0]]
        step = self._open_step(int(entry["handle"]), int(entry["step"]))
        if step is None:
            await self._ask_again(answer, indexes, tenant)
            return
        waiting: dict[int, Waiting] = {}
        for index in indexes:
            rank, loss = int(answer.entries.table["rank"][index]), float(answer.entries.losses[index])
            try:
                self._report(step, rank, Report(loss, samples[index] if samples else 1.0))
            except AdvisorError as error:
                answer.errors[index] = error
            else:
                waiting[index] = step.listen(rank)
        self._answer_if_due(step)
        try:
            for index, heard in waiting.items():
                _fill(answer, index, await heard)
        finally:
            step.forget(waiting.values())

    async def _ask_again(self, answer: Answer, indexes: Sequence[int], tenant: int) -> None:
        """Answer entries whose step is not open: it was answered meanwhile, or is further ahead."""
        some = self._engine.answer_now(Entries(answer.entries.table[list(indexes)]), tenant)
        await self._recaller.recall(some)
        answer.entries.table[list(indexes)] = some.entries.table
        answer.errors |= {indexes[place]: error for place, error in some.errors.items()}
        for place in some.reports:
            entry = some.entries.table[place]
            group = self._live.groups[group_of(int(entry["handle"]))]
            run_id = group.run_ids[int(entry["row"])]
            error = step_ahead(run_id, int(entry["step"]), int(entry["expected"]))
            answer.errors[indexes[place]] = draining() if self._draining else error

    # ---------------------------------------------------------------------------- open steps

    def _open_step(self, handle: int, number: int) -> OpenStep | None:
        """Return the step of a run that ranks report, if it is this one."""
        live = self._live.at(handle)
        if self._draining or live is None or live.status == RunStatus.FINISHED:
            return None
        record = live.group.records[live.row]
        if record["next_step"] != number or not record["gathers"]:
            return None
        step = self._open.get(handle)
        if step is None:
            step = self._open[handle] = OpenStep(handle, live.group, live.row, number)
        return step

    def _report(self, step: OpenStep, rank: int, report: Report) -> None:
        """Take what a rank reports; the same again changes nothing."""
        size = step.ranked.world_size
        if rank >= size:
            raise _no_such_rank(rank, size)
        if not (report.samples > 0 and math.isfinite(report.samples)):
            raise invalid_field("sample_counts", f"must be finite and > 0, is {report.samples}")
        if (before := step.reports.get(rank)) is not None:
            if not report.is_same(before):
                raise _other_report(step, rank, before)
            return
        timeout_s = step.ranked.config.straggler_timeout_s
        if not step.reports and timeout_s is not None:
            step.timer = asyncio.get_running_loop().call_later(timeout_s, self._be_late, step)
        step.reports[rank] = report

    def _be_late(self, step: OpenStep) -> None:
        step.late = True
        self.look(step.handle, restarted=False)

    def _answer_if_due(self, step: OpenStep) -> None:
        """Have a step answered, if enough ranks have reported."""
        reports = step.reports
        if self._open.get(step.handle) is not step or not reports:
            self._close_if_unused(step)
            return
        ranked = step.ranked
        if len(reports) < ranked.least(late=step.late):
            return
        outcome = self._advise(step, reduced(reports, cast("RankReduction", ranked.config.reduction)))
        if len(reports) < ranked.world_size and isinstance(outcome, Advised):
            del self._open[step.handle]
            task = asyncio.get_running_loop().create_task(self._resolve_stored(step, outcome))
            self._storing.add(task)
            task.add_done_callback(self._storing.discard)
        else:
            self._end(step, outcome)

    def _advise(self, step: OpenStep, loss: float) -> Outcome:
        """Have the engine answer the one loss of a step."""
        records, row = step.group.records, step.row
        records["gathers"][row] = 0
        try:
            tenant = int(records["tenant"][row])
            answer = self._engine.answer_now(Entries.of_one(step.handle, step.step, loss), tenant)
        except AdvisorError as error:
            return error
        except Exception as error:  # a defect: every rank's call fails of it
            log.error("gathered_step_failed", run_id=step.group.run_ids[row], exc_info=error)
            return error
        finally:
            records["gathers"][row] = 1
        if answer.errors:
            return answer.errors[0]
        entry = answer.entries.table[0]
        return Advised(
            float(entry["lr"]), int(entry["reason"]), int(entry["durable_step"]), len(step.reports)
        )

    async def _resolve_stored(self, step: OpenStep, advised: Advised) -> None:
        """Give an answer that lacks ranks once it is stored: gathered again, it might be of more ranks."""
        try:
            with suppress(AdvisorError, TimeoutError):
                await asyncio.wait_for(self._live.journal.flush(), LONGEST_PROMISE_S)
            record = step.group.records[step.row]
            if record["handle"] == step.handle:
                advised = advised._replace(durable_step=int(record["durable_step"]))
        finally:
            step.resolve(advised)

    def _end(self, step: OpenStep, outcome: Outcome) -> None:
        """Let an open step be open no more."""
        if self._open.get(step.handle) is step:
            del self._open[step.handle]
        step.resolve(outcome)

    def _close_if_unused(self, step: OpenStep) -> None:
        """Forget an open step that no rank has reported."""
        if not step.reports:
            self._end(step, stale_handle())  # which nobody waits for


def _fill(answer: Answer, index: int, outcome: Outcome) -> None:
    """Give an entry what came of its step; raise what is not about the entry, but fails the whole call."""
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


def _other_report(step: OpenStep, rank: int, before: Report) -> AdvisorError:
    error = stale_step(step.group.run_ids[step.row], step.step, before.loss, step.step)
    return AdvisorError(
        Reason.STALE_STEP,
        f"step: rank {rank} has reported step {step.step} of run {step.group.run_ids[step.row]!r} before, "
        f"with the loss {before.loss!r} of {before.samples:g} samples. To report another, open the run with "
        f"resume_from={step.step}",
        field=error.field,
        next_step=step.step,
    )
