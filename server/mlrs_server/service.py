"""The RPCs of the contract, each a few lines over the runs and the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc

from mlrs_proto.v1 import advisor_pb2 as pb
from mlrs_proto.v1.advisor_pb2_grpc import AdvisorServiceServicer
from mlrs_server import convert
from mlrs_server.engine import SLICE, Engine
from mlrs_server.errors import AdvisorError, Reason, draining
from mlrs_server.lifecycle import RunLifecycle
from mlrs_server.models import ModelCatalog
from mlrs_server.opening import check_batch_size
from mlrs_server.records import RunRecords
from mlrs_server.turns import in_turns

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
        self, lifecycle: RunLifecycle, records: RunRecords, engine: Engine, catalog: ModelCatalog
    ) -> None:
        """Serve these runs and models."""
        self._lifecycle = lifecycle
        self._records = records
        self._engine = engine
        self._catalog = catalog
        self._streams: set[_Stream] = set()
        self._draining = False

    def drain(self) -> None:
        """Take no more observations; let every stream finish its step and tell it so."""
        self._draining = True
        self._records.drain()
        for stream in self._streams:
            stream.drain()

    # --------------------------------------------------------------------------------- runs

    async def CreateRun(self, request: pb.CreateRunRequest, context: Context) -> pb.CreateRunResponse:
        """Create or resume a run."""
        return convert.opened_to(await self._lifecycle.open(convert.opening_from(request)))

    async def BatchCreateRuns(
        self, request: pb.BatchCreateRunsRequest, context: Context
    ) -> pb.BatchCreateRunsResponse:
        """Create or resume many runs."""
        asked = request.requests
        check_batch_size("requests", len(asked))
        openings = [convert.opening_from(one, among=len(asked)) async for one in in_turns(asked)]
        opened = await self._lifecycle.open_many(openings)
        return pb.BatchCreateRunsResponse(
            responses=[convert.opened_to(one) async for one in in_turns(opened)]
        )

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        """Read a run."""
        return pb.GetRunResponse(run=convert.run_to(await self._records.get(request.run_id)))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        """List runs; the page token is the last id of the page before."""
        size = convert.page_size_from(request.page_size)
        views = await self._records.list(
            prefix=request.prefix,
            status=convert.status_from(request.status),
            after=request.page_token,
            limit=size + 1,
        )
        page = views[:size]
        token = page[-1].run_id if len(views) > size else ""
        return pb.ListRunsResponse(runs=[convert.run_to(view) for view in page], next_page_token=token)

    async def FinishRun(self, request: pb.FinishRunRequest, context: Context) -> pb.FinishRunResponse:
        """Finish a run."""
        return pb.FinishRunResponse(run=convert.run_to(await self._lifecycle.finish(request.run_id)))

    async def BatchFinishRuns(
        self, request: pb.BatchFinishRunsRequest, context: Context
    ) -> pb.BatchFinishRunsResponse:
        """Finish many runs."""
        views = await self._lifecycle.finish_many(list(request.run_ids))
        return pb.BatchFinishRunsResponse(runs=[convert.run_to(view) async for view in in_turns(views)])

    async def DeleteRun(self, request: pb.DeleteRunRequest, context: Context) -> pb.DeleteRunResponse:
        """Delete a run."""
        await self._lifecycle.delete(request.run_id)
        return pb.DeleteRunResponse()

    # ------------------------------------------------------------------------------- advice

    async def Advise(self, request: pb.AdviseRequest, context: Context) -> pb.AdviseResponse:
        """Answer one observation."""
        if self._draining:
            raise draining()
        step = convert.step_from(request.step, "step")
        handle = await self._lifecycle.handle_of(request.run_id)
        answer = self._engine.answer_now(convert.entry_of(handle, step, request.loss))
        await self._records.recall(answer)
        if answer.errors:
            raise answer.errors[0]
        return convert.advice_to(step, answer)

    async def StreamAdvice(  # type: ignore[override]  # the stubs know generators only
        self, request_iterator: AsyncIterator[pb.StreamAdviceRequest], context: Context
    ) -> None:
        """Answer observations, a message for a message, until the client or the daemon is done."""
        if self._draining:
            raise draining()
        stream = _Stream()
        self._streams.add(stream)
        try:
            await self._converse(stream, context)
        except asyncio.CancelledError:
            if not stream.was_woken():
                raise
        finally:
            self._streams.discard(stream)
        if stream.draining:
            await context.write(pb.StreamAdviceResponse(drain=pb.Drain(message=str(draining()))))

    async def _converse(self, stream: _Stream, context: Context) -> None:
        """Answer messages until there are no more, or the daemon drains."""
        while not stream.draining:
            stream.reading = True
            request = await context.read()
            stream.reading = False
            if request is grpc.aio.EOF:
                return
            entries = convert.entries_from(request)
            quick = len(entries) <= SLICE
            answer = self._engine.answer_now(entries) if quick else await self._engine.answer(entries)
            if answer.recalls:
                await self._records.recall(answer)
            await context.write(convert.columns_to(answer))

    async def WatchRun(
        self, request: pb.WatchRunRequest, context: Context
    ) -> AsyncIterator[pb.WatchRunResponse]:
        """Stream a run's record."""
        start = convert.step_from(request.from_step, "from_step")
        async for view, first, record in self._records.watch(request.run_id, start, follow=request.follow):
            yield convert.record_to(view, first, record)

    # ------------------------------------------------------------------------------- models

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """List models; the page token is the last reference of the page before."""
        size = convert.page_size_from(request.page_size)
        models = [model for model in self._catalog.all() if model.ref > request.page_token]
        page = models[:size]
        token = page[-1].ref if len(models) > size else ""
        messages = [convert.model_to(model, self._catalog.aliases_of(model)) for model in page]
        return pb.ListModelsResponse(models=messages, next_page_token=token)

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Read a model."""
        model = self._catalog.find(request.model)
        return pb.GetModelResponse(model=convert.model_to(model, self._catalog.aliases_of(model)))

    # --------------------------------------------------------------- in the contract, not built

    async def Adapt(self, request: pb.AdaptRequest, context: Context) -> NoReturn:
        """Refuse: not built yet."""
        raise _not_built("Adapt", "meta mode")

    async def AdaptGradients(
        self, request_iterator: AsyncIterator[pb.AdaptGradientsRequest], context: Context
    ) -> NoReturn:
        """Refuse: not built yet."""
        raise _not_built("AdaptGradients", "meta mode")

    async def ImportModel(
        self, request_iterator: AsyncIterator[pb.ImportModelRequest], context: Context
    ) -> NoReturn:
        """Refuse: not built yet."""
        raise _not_built("ImportModel", "upload of models; use `mlrs models import` beside the daemon")

    async def SetAlias(self, request: pb.SetAliasRequest, context: Context) -> NoReturn:
        """Refuse: not built yet."""
        raise _not_built("SetAlias", "aliases; `mlrs serve --model` sets the default model")


def _not_built(rpc: str, what: str) -> AdvisorError:
    return AdvisorError(
        Reason.NOT_BUILT,
        f"{rpc} is in the contract, but this version of the daemon does not build it yet: {what}",
    )
