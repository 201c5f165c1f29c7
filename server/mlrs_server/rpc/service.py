"""The RPCs of `AdvisorService`: each converts messages and calls the runs or the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceServicer
from mlrs_server.auth.principal import current_caller
from mlrs_server.domain.observations import Entries
from mlrs_server.errors import draining
from mlrs_server.live.engine import SLICE, Engine
from mlrs_server.live.recall import Recaller
from mlrs_server.ranks.reports import RankReducer
from mlrs_server.rpc import convert
from mlrs_server.rpc.meta_service import MetaService
from mlrs_server.rpc.streams import OpenStream, OpenStreams
from mlrs_server.runs.annotating import RunNotes
from mlrs_server.runs.ending import RunEnding
from mlrs_server.runs.feeders import Feeders
from mlrs_server.runs.open_request import check_batch_size
from mlrs_server.runs.opener import RunOpener
from mlrs_server.runs.past import Outcome
from mlrs_server.runs.records import RunRecords
from mlrs_server.runs.searching import RunSearches
from mlrs_server.runs.summaries import RunSummaries
from mlrs_server.system.cooperative import cooperatively
from mlrs_server.telemetry.counts import AdviceCounts
from mlrs_server.telemetry.latency import now_s

Context = grpc.aio.ServicerContext[Any, Any]


class AdvisorService(AdvisorServiceServicer):
    """Runs, advice and meta mode."""

    def __init__(
        self,
        opener: RunOpener,
        ending: RunEnding,
        records: RunRecords,
        summaries: RunSummaries,
        notes: RunNotes,
        searches: RunSearches,
        recaller: Recaller,
        engine: Engine,
        rank_reducer: RankReducer,
        meta: MetaService,
        counts: AdviceCounts,
        feeders: Feeders,
    ) -> None:
        """Serve these runs, count the advice in `counts`, and record which feeders are connected."""
        self._opener = opener
        self._ending = ending
        self._records = records
        self._summaries = summaries
        self._notes = notes
        self._searches = searches
        self._recaller = recaller
        self._engine = engine
        self._rank_reducer = rank_reducer
        self._streams = OpenStreams()
        self._meta = meta
        self._counts = counts
        self._feeders = feeders

    def stream_count(self) -> int:
        """Return the number of open StreamAdvice calls. May be called on any thread."""
        return self._streams.count()

    def drain(self) -> None:
        """Take no more observations: every stream finishes its step, and gets a drain message."""
        self._records.drain()
        self._rank_reducer.drain()
        self._streams.drain()

    # --------------------------------------------------------------------------------- runs

    async def OpenRun(self, request: pb.OpenRunRequest, context: Context) -> pb.OpenRunResponse:
        """Create or resume a run."""
        opening = convert.opening_from_proto(request, current_caller().tenant)
        (opened,) = await self._opener.open_many([opening])
        return convert.opened_to_proto(opened)

    async def BatchOpenRuns(
        self, request: pb.BatchOpenRunsRequest, context: Context
    ) -> pb.BatchOpenRunsResponse:
        """Create or resume many runs."""
        asked, tenant = request.requests, current_caller().tenant
        check_batch_size("requests", len(asked))
        openings = [
            convert.opening_from_proto(one, tenant, among=len(asked)) async for one in cooperatively(asked)
        ]
        opened = await self._opener.open_many(openings)
        return pb.BatchOpenRunsResponse(
            responses=[convert.opened_to_proto(one, has_notes=False) async for one in cooperatively(opened)]
        )

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        """Read a run."""
        run_id = current_caller().full(request.run_id)
        view = await self._records.get(run_id)
        ranks = convert.rank_status_to_proto(self._rank_reducer.status(run_id))
        return pb.GetRunResponse(run=convert.run_to_proto(view), ranks=ranks)

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        """List runs; the page token is the position at the end of the previous page."""
        size = convert.page_size_from_proto(request.page_size)
        after = convert.list_position_from_proto(request.order_by, request.page_token)
        views = await self._records.list(
            prefix=request.prefix,
            status=convert.status_from_proto(request.status),
            after=after,
            limit=size + 1,
            tenant=current_caller().tenant,
            traits=convert.traits_from_proto(request),
        )
        page = convert.page_of(views, size)
        runs = [convert.run_to_proto(view) async for view in cooperatively(page)]
        token = convert.page_token_to_proto(after, page) if len(views) > len(page) else ""
        return pb.ListRunsResponse(runs=runs, next_page_token=token)

    async def UpdateRun(self, request: pb.UpdateRunRequest, context: Context) -> pb.UpdateRunResponse:
        """Change the tags and the note of a run."""
        change = convert.note_change_from_proto(request)
        view = await self._notes.change(current_caller().full(request.run_id), change)
        return pb.UpdateRunResponse(run=convert.run_to_proto(view))

    async def FinishRun(self, request: pb.FinishRunRequest, context: Context) -> pb.FinishRunResponse:
        """Finish a run."""
        steps = (
            [convert.step_from_proto(request.next_step, "next_step")] if request.HasField("next_step") else []
        )
        outcome = convert.outcome_from_proto(request)
        (view,) = await self._ending.finish_many([current_caller().full(request.run_id)], steps, [outcome])
        return pb.FinishRunResponse(run=convert.run_to_proto(view))

    async def BatchFinishRuns(
        self, request: pb.BatchFinishRunsRequest, context: Context
    ) -> pb.BatchFinishRunsResponse:
        """Finish many runs."""
        caller = current_caller()
        check_batch_size("run_ids", len(request.run_ids))
        steps = [convert.step_from_proto(step, "next_steps") for step in request.next_steps]
        outcomes = [
            Outcome(
                metric=convert.metric_from_proto(metric, "metrics"), higher_is_better=request.higher_is_better
            )
            for metric in request.metrics
        ]
        run_ids = [caller.full(run_id) for run_id in request.run_ids]
        views = await self._ending.finish_many(run_ids, steps, outcomes)
        return pb.BatchFinishRunsResponse(
            runs=[convert.run_to_proto(view, has_notes=False) async for view in cooperatively(views)]
        )

    async def DeleteRun(self, request: pb.DeleteRunRequest, context: Context) -> pb.DeleteRunResponse:
        """Delete a run."""
        await self._ending.delete(current_caller().full(request.run_id))
        return pb.DeleteRunResponse()

    # ------------------------------------------------------------------------------- search

    async def SearchTrial(self, request: pb.SearchTrialRequest, context: Context) -> pb.SearchTrialResponse:
        """Take the result of a trial, and say what comes next."""
        self._streams.check_open()
        run_id = current_caller().full(request.run_id)
        view = await self._searches.report(convert.report_from_proto(request, run_id))
        return pb.SearchTrialResponse(search=convert.search_to_proto(view))

    async def GetSearch(self, request: pb.GetSearchRequest, context: Context) -> pb.GetSearchResponse:
        """Read the search of a run."""
        view = await self._searches.get(current_caller().full(request.run_id))
        return pb.GetSearchResponse(search=convert.search_to_proto(view))

    # ------------------------------------------------------------------------------- advice

    async def Advise(self, request: pb.AdviseRequest, context: Context) -> pb.AdviseResponse:
        """Answer one observation."""
        arrival_s = now_s()
        self._streams.check_open()
        step = convert.step_from_proto(request.step, "step")
        extras = convert.extras_of_one(request, step)
        caller = current_caller()
        handle = await self._opener.handle_of(caller.full(request.run_id))
        entries = Entries.of_one(handle, step, request.loss, extras=extras)
        answer = self._engine.answer_now(entries, caller.number)
        await self._recaller.recall(answer)
        if answer.reports:
            await self._rank_reducer.reduce_alone(answer, caller.number)
        if answer.errors:
            raise answer.errors[0]  # `StatusInterceptor` counts it
        self._counts.note(answer)
        response = convert.advice_to_proto(step, answer)
        self._counts.note_latency(answer, arrival_s)
        return response

    async def StreamAdvice(  # type: ignore[override]  # the stubs know generators only
        self, request_iterator: AsyncIterator[pb.StreamAdviceRequest], context: Context
    ) -> None:
        """Answer each message of observations, until the client ends the stream or the daemon drains."""
        feeder = convert.feeder_from_metadata(context.invocation_metadata())
        with (
            self._streams.opened() as stream,
            self._feeders.streaming(current_caller().tenant, feeder),
        ):
            await self._converse(stream, context)
        if stream.draining:
            await context.write(pb.StreamAdviceResponse(drain=pb.Drain(message=str(draining()))))

    async def _converse(self, stream: OpenStream, context: Context) -> None:
        """Answer messages until the stream ends, the daemon drains, or the caller's token becomes invalid."""
        caller = current_caller()
        tenant, number, usage = caller.tenant, caller.number, caller.usage
        while not stream.draining:
            stream.reading = True
            request = await context.read()
            stream.reading = False
            if request is grpc.aio.EOF:
                return
            arrival_s = now_s()
            caller.check()
            if not usage.take():
                await usage.throttle()
            if request.HasField("meta_updates"):
                await context.write(await self._meta.adapt_all(request.meta_updates))
                continue
            observations = request.observations
            entries = convert.entries_from_proto(observations)
            if len(entries) <= SLICE:
                answer = self._engine.answer_now(entries, number)
            else:
                answer = await self._engine.answer(entries, number)
            if answer.recalls:
                await self._recaller.recall(answer)
            if answer.reports:
                await self._rank_reducer.reduce(answer, observations.rank_columns.sample_counts, number)
            self._counts.note(answer)
            response = convert.columns_to_proto(answer, tenant)
            self._counts.note_latency(answer, arrival_s)
            await context.write(response)

    async def WatchRun(
        self, request: pb.WatchRunRequest, context: Context
    ) -> AsyncIterator[pb.WatchRunResponse]:
        """Stream a run's record."""
        start = convert.step_from_proto(request.from_step, "from_step")
        run_id = current_caller().full(request.run_id)
        async for view, first, record in self._records.watch(run_id, start, follow=request.follow):
            yield convert.record_to_proto(view, first, record)

    async def SummarizeRecord(
        self, request: pb.SummarizeRecordRequest, context: Context
    ) -> pb.SummarizeRecordResponse:
        """Read a part of a run's record in buckets."""
        asked = convert.summary_from_proto(request)
        summarized = await self._summaries.summarize(current_caller().full(request.run_id), asked)
        return convert.summary_to_proto(summarized)

    async def SampleRecords(
        self, request: pb.SampleRecordsRequest, context: Context
    ) -> pb.SampleRecordsResponse:
        """Read a few steps of many runs."""
        caller, count = current_caller(), convert.samples_from_proto(request)
        samples = await self._summaries.sample([caller.full(run_id) for run_id in request.run_ids], count)
        return pb.SampleRecordsResponse(
            samples=[convert.sample_to_proto(one) async for one in cooperatively(samples)]
        )

    async def ListRunEvents(
        self, request: pb.ListRunEventsRequest, context: Context
    ) -> pb.ListRunEventsResponse:
        """List the events of a run."""
        after = convert.step_from_proto(request.after, "after")
        events = await self._records.events(current_caller().full(request.run_id), after)
        return convert.events_to_proto(events)

    # -------------------------------------------------------------------------------- meta

    async def Adapt(self, request: pb.AdaptRequest, context: Context) -> pb.AdaptResponse:
        """Apply a meta update."""
        self._streams.check_open()
        return await self._meta.adapt(request)

    async def AdaptGradients(
        self, request_iterator: AsyncIterator[pb.AdaptGradientsRequest], context: Context
    ) -> pb.AdaptGradientsResponse:
        """Apply a meta update from two gradients."""
        self._streams.check_open()
        return await self._meta.adapt_gradients(aiter(request_iterator))
