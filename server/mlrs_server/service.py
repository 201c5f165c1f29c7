"""The RPCs of the contract, each a few lines over the runs and the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import structlog

from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceServicer
from mlrs_server import convert
from mlrs_server.counts import AdviceCounts
from mlrs_server.engine import SLICE, Engine
from mlrs_server.entries import Entries
from mlrs_server.errors import AdvisorError, draining
from mlrs_server.feeders import Feeders
from mlrs_server.gathering import Gatherer
from mlrs_server.lifecycle import RunLifecycle
from mlrs_server.meta_service import MetaService
from mlrs_server.models import CatalogModel, ModelCatalog
from mlrs_server.opening import check_batch_size
from mlrs_server.records import RunRecords
from mlrs_server.security.caller import current_caller
from mlrs_server.turns import in_turns
from mlrs_server.uploads import Upload
from mlrs_server.version_service import VersionService

log = structlog.get_logger()

Context = grpc.aio.ServicerContext[Any, Any]


class _Stream:
    """An open StreamAdvice call: whether it waits for a message, and how to wake it for a drain."""

    def __init__(self) -> None:
        self.reading = False
        """Whether it waits for a message."""
        self.draining = False
        """Whether it was told to end."""
        self._task = asyncio.current_task()

    def drain(self) -> None:
        """Make the stream end after the step it is in."""
        self.draining = True
        if self.reading and self._task is not None:
            self._task.cancel()

    def was_woken(self) -> bool:
        """Return whether it is by `drain` that the stream's task was cancelled; it then goes on."""
        return self.draining and self.reading and self._task is not None and not self._task.uncancel()


class AdvisorService(AdvisorServiceServicer):
    """The contract, served."""

    def __init__(
        self,
        lifecycle: RunLifecycle,
        records: RunRecords,
        engine: Engine,
        catalog: ModelCatalog,
        gatherer: Gatherer,
        meta: MetaService,
        versions: VersionService,
        counts: AdviceCounts,
        feeders: Feeders,
        folder: Path,
    ) -> None:
        """Serve these runs and models, count what is advised, and note which feeders are connected.

        Model files that come in pieces are kept in the folder meanwhile.
        """
        self._lifecycle = lifecycle
        self._records = records
        self._engine = engine
        self._catalog = catalog
        self._gatherer = gatherer
        self._importing = asyncio.Lock()
        self._streams: set[_Stream] = set()
        self._draining = False
        self._meta = meta
        self._versions = versions
        self._counts = counts
        self._feeders = feeders
        self._folder = folder

    def drain(self) -> None:
        """Take no more observations; let every stream finish its step and tell it so."""
        self._draining = True
        self._records.drain()
        self._gatherer.drain()
        for stream in self._streams:
            stream.drain()

    def _check_going(self) -> None:
        """Raise if the daemon is about to stop."""
        if self._draining:
            raise draining()

    # --------------------------------------------------------------------------------- runs

    async def CreateRun(self, request: pb.CreateRunRequest, context: Context) -> pb.CreateRunResponse:
        """Create or resume a run."""
        opening = convert.opening_from(request, current_caller().tenant)
        return convert.opened_to(await self._lifecycle.open(opening))

    async def BatchCreateRuns(
        self, request: pb.BatchCreateRunsRequest, context: Context
    ) -> pb.BatchCreateRunsResponse:
        """Create or resume many runs."""
        asked, tenant = request.requests, current_caller().tenant
        check_batch_size("requests", len(asked))
        openings = [convert.opening_from(one, tenant, among=len(asked)) async for one in in_turns(asked)]
        opened = await self._lifecycle.open_many(openings)
        return pb.BatchCreateRunsResponse(
            responses=[convert.opened_to(one) async for one in in_turns(opened)]
        )

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        """Read a run."""
        view = await self._records.get(current_caller().full(request.run_id))
        return pb.GetRunResponse(run=convert.run_to(view))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        """List runs; the page token says where the page before ended."""
        size = convert.page_size_from(request.page_size)
        after = convert.place_from(request.order_by, request.page_token)
        views = await self._records.list(
            prefix=request.prefix,
            status=convert.status_from(request.status),
            after=after,
            limit=size + 1,
            tenant=current_caller().tenant,
        )
        page = [convert.run_to(view) async for view in in_turns(views[:size])]
        token = convert.page_token_to(after, views[:size]) if len(views) > size else ""
        return pb.ListRunsResponse(runs=page, next_page_token=token)

    async def FinishRun(self, request: pb.FinishRunRequest, context: Context) -> pb.FinishRunResponse:
        """Finish a run."""
        step = convert.step_from(request.next_step, "next_step") if request.HasField("next_step") else None
        view = await self._lifecycle.finish(current_caller().full(request.run_id), step)
        return pb.FinishRunResponse(run=convert.run_to(view))

    async def BatchFinishRuns(
        self, request: pb.BatchFinishRunsRequest, context: Context
    ) -> pb.BatchFinishRunsResponse:
        """Finish many runs."""
        caller = current_caller()
        check_batch_size("run_ids", len(request.run_ids))
        steps = [convert.step_from(step, "next_steps") for step in request.next_steps]
        views = await self._lifecycle.finish_many([caller.full(run_id) for run_id in request.run_ids], steps)
        return pb.BatchFinishRunsResponse(runs=[convert.run_to(view) async for view in in_turns(views)])

    async def DeleteRun(self, request: pb.DeleteRunRequest, context: Context) -> pb.DeleteRunResponse:
        """Delete a run."""
        await self._lifecycle.delete(current_caller().full(request.run_id))
        return pb.DeleteRunResponse()

    # ------------------------------------------------------------------------------- advice

    async def Advise(self, request: pb.AdviseRequest, context: Context) -> pb.AdviseResponse:
        """Answer one observation."""
        if self._draining:
            raise draining()
        step = convert.step_from(request.step, "step")
        caller = current_caller()
        handle = await self._lifecycle.handle_of(caller.full(request.run_id))
        answer = self._engine.answer_now(Entries.of_one(handle, step, request.loss), caller.number)
        await self._records.recall(answer)
        if answer.reports:
            await self._gatherer.gather_alone(answer, caller.number)
        if answer.errors:
            raise answer.errors[0]  # counted where calls that fail are
        self._counts.note(answer)
        return convert.advice_to(step, answer)

    async def StreamAdvice(  # type: ignore[override]  # the stubs know generators only
        self, request_iterator: AsyncIterator[pb.StreamAdviceRequest], context: Context
    ) -> None:
        """Answer observations, a message for a message, until the client or the daemon is done."""
        if self._draining:
            raise draining()
        stream = _Stream()
        feeder = convert.feeder_from(context.invocation_metadata())
        self._streams.add(stream)
        try:
            with self._feeders.streaming(current_caller().tenant, feeder):
                await self._converse(stream, context)
        except asyncio.CancelledError:
            if not stream.was_woken():
                raise
        finally:
            self._streams.discard(stream)
        if stream.draining:
            await context.write(pb.StreamAdviceResponse(drain=pb.Drain(message=str(draining()))))

    async def _converse(self, stream: _Stream, context: Context) -> None:
        """Answer messages until there are no more, the daemon drains, or the caller is to go."""
        caller = current_caller()
        tenant, number, usage = caller.tenant, caller.number, caller.usage
        while not stream.draining:
            stream.reading = True
            request = await context.read()
            stream.reading = False
            if request is grpc.aio.EOF:
                return
            caller.check()
            if not usage.take():
                await usage.turn()
            if request.updates:
                await context.write(await self._meta.adapt_all(request))
                continue
            entries = convert.entries_from(request)
            if len(entries) <= SLICE:
                answer = self._engine.answer_now(entries, number)
            else:
                answer = await self._engine.answer(entries, number)
            if answer.recalls:
                await self._records.recall(answer)
            if answer.reports:
                await self._gatherer.gather(answer, request.sample_counts, number)
            self._counts.note(answer)
            await context.write(convert.columns_to(answer, tenant))

    async def WatchRun(
        self, request: pb.WatchRunRequest, context: Context
    ) -> AsyncIterator[pb.WatchRunResponse]:
        """Stream a run's record."""
        start = convert.step_from(request.from_step, "from_step")
        run_id = current_caller().full(request.run_id)
        async for view, first, record in self._records.watch(run_id, start, follow=request.follow):
            yield convert.record_to(view, first, record)

    # ------------------------------------------------------------------------------- models

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """List models; the page token is the last reference of the page before."""
        size = convert.page_size_from(request.page_size)
        tenant = current_caller().tenant
        models = await asyncio.to_thread(self._catalog.page, tenant, after=request.page_token, limit=size + 1)
        page = models[:size]
        token = page[-1].ref if len(models) > size else ""
        return pb.ListModelsResponse(
            models=[self._model_to(model, tenant) for model in page], next_page_token=token
        )

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Read a model."""
        tenant = current_caller().tenant
        model = await asyncio.to_thread(self._catalog.find, request.model, tenant)
        return pb.GetModelResponse(model=self._model_to(model, tenant))

    async def ImportModel(
        self, request_iterator: AsyncIterator[pb.ImportModelRequest], context: Context
    ) -> pb.ImportModelResponse:
        """Take a model's file, and have runs of the caller's tenant name it."""
        caller = current_caller()
        try:
            name, digest = convert.import_header_from(await anext(aiter(request_iterator), None))
            with Upload(self._catalog, self._folder, name, caller.tenant, caller.usage) as upload:
                async for message in request_iterator:
                    await upload.add(convert.chunk_from(message))
                async with self._importing:  # one file at a time in memory
                    model = await upload.done(digest)
        except AdvisorError:
            await _read_out(request_iterator, caller.usage.limits.max_model_bytes)
            raise
        log.info(
            "model_imported",
            tenant=caller.tenant,
            model=model.name,
            digest=model.digest,
            size_bytes=model.size_bytes,
        )
        return pb.ImportModelResponse(model=self._model_to(model, caller.tenant))

    async def SetAlias(self, request: pb.SetAliasRequest, context: Context) -> pb.SetAliasResponse:
        """Point an alias of the caller's tenant at a model."""
        return await self._versions.set_alias(request)

    def _model_to(self, model: CatalogModel, tenant: str) -> pb.Model:
        aliases = self._catalog.names.aliases_of(model.name, model.digest, tenant)
        return convert.model_to(model, aliases)

    # -------------------------------------------------------------------------------- meta

    async def Adapt(self, request: pb.AdaptRequest, context: Context) -> pb.AdaptResponse:
        """Make a meta update, or take a part of one."""
        self._check_going()
        return await self._meta.adapt(request)

    async def AdaptGradients(
        self, request_iterator: AsyncIterator[pb.AdaptGradientsRequest], context: Context
    ) -> pb.AdaptGradientsResponse:
        """Make a meta update from two gradients."""
        self._check_going()
        return await self._meta.adapt_gradients(aiter(request_iterator))

    async def PromoteModel(
        self, request: pb.PromoteModelRequest, context: Context
    ) -> pb.PromoteModelResponse:
        """Make a new version of a model."""
        self._check_going()
        return await self._versions.promote(request)

    async def RollbackAlias(
        self, request: pb.RollbackAliasRequest, context: Context
    ) -> pb.RollbackAliasResponse:
        """Point an alias of the caller's tenant back at what it pointed at before."""
        return await self._versions.rollback(request)

    async def ListAliasChanges(
        self, request: pb.ListAliasChangesRequest, context: Context
    ) -> pb.ListAliasChangesResponse:
        """List what an alias has pointed at."""
        return await self._versions.changes(request)


async def _read_out(messages: AsyncIterator[pb.ImportModelRequest], most: int) -> None:
    """Read what a refused upload still sends, up to so many bytes.

    A client that is refused while it writes may see its connection break in place of the reason.
    """
    async for message in messages:
        most -= message.ByteSize()
        if most < 0:
            return
