"""The RPCs of `ModelService`: each converts messages and calls the catalogue or `meta.promotion`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import structlog

from mlrs_proto import v1 as pb
from mlrs_proto.v1.model_service_pb2_grpc import ModelServiceServicer
from mlrs_server.auth.principal import current_caller
from mlrs_server.errors import AdvisorError, draining
from mlrs_server.meta.promotion import Promotion
from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.models.files import CatalogModel
from mlrs_server.rpc import convert
from mlrs_server.rpc.uploads import Upload

log = structlog.get_logger()

Context = grpc.aio.ServicerContext[Any, Any]


class ModelService(ModelServiceServicer):
    """Models, their versions and aliases. Every call is limited to the caller's tenant."""

    def __init__(self, catalog: ModelCatalog, promotion: Promotion, folder: Path) -> None:
        """Serve the models of this catalogue; uploads are written to temporary files in `folder`."""
        self._catalog = catalog
        self._promotion = promotion
        self._folder = folder
        self._importing = asyncio.Lock()
        self._draining = False

    def drain(self) -> None:
        """Refuse promotions from now on: they replay runs, which takes long."""
        self._draining = True

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """List models; the page token is the last reference of the previous page."""
        size = convert.page_size_from_proto(request.page_size)
        tenant = current_caller().tenant
        models = await asyncio.to_thread(self._catalog.page, tenant, after=request.page_token, limit=size + 1)
        page = models[:size]
        token = page[-1].ref if len(models) > size else ""
        return pb.ListModelsResponse(models=map(self._model_to_proto, page), next_page_token=token)

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Read a model."""
        model = await asyncio.to_thread(self._catalog.find, request.model, current_caller().tenant)
        return pb.GetModelResponse(model=self._model_to_proto(model))

    async def ImportModel(
        self, request_iterator: AsyncIterator[pb.ImportModelRequest], context: Context
    ) -> pb.ImportModelResponse:
        """Add an uploaded model to the catalogue."""
        caller = current_caller()
        try:
            name, digest = convert.import_header_from_proto(await anext(aiter(request_iterator), None))
            with Upload(self._catalog, self._folder, name, caller.tenant, caller.usage) as upload:
                async for message in request_iterator:
                    await upload.add(convert.chunk_from_proto(message))
                async with self._importing:  # one file at a time in memory
                    model = await upload.done(digest)
        except AdvisorError:
            await _read_out(request_iterator, caller.usage.limits.max_model_bytes)
            raise
        _note("model_imported", model, size_bytes=model.size_bytes)
        return pb.ImportModelResponse(model=self._model_to_proto(model))

    async def SetAlias(self, request: pb.SetAliasRequest, context: Context) -> pb.SetAliasResponse:
        """Point an alias at a model."""
        tenant = current_caller().tenant
        model = await asyncio.to_thread(self._catalog.set_alias, request.alias, request.model, tenant)
        _note("alias_set", model, alias=request.alias)
        return pb.SetAliasResponse(model=self._model_to_proto(model))

    async def PromoteModel(
        self, request: pb.PromoteModelRequest, context: Context
    ) -> pb.PromoteModelResponse:
        """Create a new version of a model from the adapted weights of runs."""
        if self._draining:
            raise draining()
        tenant = current_caller().tenant
        promoted = await self._promotion.promote(convert.promotion_from_proto(request), tenant)
        model = None if promoted.model is None else self._model_to_proto(promoted.model)
        return convert.promoted_to_proto(promoted, model)

    async def RollbackAlias(
        self, request: pb.RollbackAliasRequest, context: Context
    ) -> pb.RollbackAliasResponse:
        """Return an alias to its previous target."""
        tenant = current_caller().tenant
        model = await asyncio.to_thread(self._catalog.rollback_alias, request.alias, tenant)
        _note("alias_rolled_back", model, alias=request.alias)
        return pb.RollbackAliasResponse(model=self._model_to_proto(model))

    async def ListAliasChanges(
        self, request: pb.ListAliasChangesRequest, context: Context
    ) -> pb.ListAliasChangesResponse:
        """List the changes of an alias."""
        tenant = current_caller().tenant
        changes = await asyncio.to_thread(self._catalog.alias_changes, request.alias, tenant)
        return pb.ListAliasChangesResponse(changes=map(convert.alias_change_to_proto, changes))

    def _model_to_proto(self, model: CatalogModel) -> pb.Model:
        tenant = current_caller().tenant
        return convert.model_to_proto(model, self._catalog.names.aliases_of(model.name, model.digest, tenant))


def _note(event: str, model: CatalogModel, **more: object) -> None:
    """Log a change of a model of the caller's tenant."""
    log.info(event, tenant=current_caller().tenant, model=model.name, digest=model.digest, **more)


async def _read_out(messages: AsyncIterator[pb.ImportModelRequest], most: int) -> None:
    """Read the rest of a refused upload, up to `most` bytes.

    Otherwise a client that is still writing may see a broken connection instead of the reason.
    """
    async for message in messages:
        most -= message.ByteSize()
        if most < 0:
            return
