"""The calls about versions of models, each a few lines over the promotion and the catalogue."""

from __future__ import annotations

import asyncio

import structlog

from mlrs_proto import v1 as pb
from mlrs_server import convert
from mlrs_server.adapting.promotion import Promotion
from mlrs_server.models import CatalogModel, ModelCatalog
from mlrs_server.security.caller import current_caller

log = structlog.get_logger()


class VersionService:
    """New versions of models and the aliases that point at them, served."""

    def __init__(self, promotion: Promotion, catalog: ModelCatalog) -> None:
        """Serve the models of this catalogue."""
        self._promotion = promotion
        self._catalog = catalog

    async def promote(self, request: pb.PromoteModelRequest) -> pb.PromoteModelResponse:
        """Make a new version of a model, of what runs of the caller's tenant have learnt."""
        tenant = current_caller().tenant
        made = await self._promotion.make(convert.promotion_from(request), tenant)
        model = None if made.model is None else self._model_to(made.model, tenant)
        return convert.promoted_to(made, model)

    async def set_alias(self, request: pb.SetAliasRequest) -> pb.SetAliasResponse:
        """Point an alias of the caller's tenant at a model."""
        tenant = current_caller().tenant
        model = await asyncio.to_thread(self._catalog.set_alias, request.alias, request.model, tenant)
        log.info("alias_set", tenant=tenant, alias=request.alias, model=model.name, digest=model.digest)
        return pb.SetAliasResponse(model=self._model_to(model, tenant))

    async def rollback(self, request: pb.RollbackAliasRequest) -> pb.RollbackAliasResponse:
        """Point an alias of the caller's tenant back."""
        tenant = current_caller().tenant
        model = await asyncio.to_thread(self._catalog.rollback_alias, request.alias, tenant)
        log.info(
            "alias_rolled_back", tenant=tenant, alias=request.alias, model=model.name, digest=model.digest
        )
        return pb.RollbackAliasResponse(model=self._model_to(model, tenant))

    async def changes(self, request: pb.ListAliasChangesRequest) -> pb.ListAliasChangesResponse:
        """List what an alias has pointed at."""
        tenant = current_caller().tenant
        changes = await asyncio.to_thread(self._catalog.alias_changes, request.alias, tenant)
        return pb.ListAliasChangesResponse(changes=map(convert.alias_change_to, changes))

    def _model_to(self, model: CatalogModel, tenant: str) -> pb.Model:
        aliases = self._catalog.names.aliases_of(model.name, model.digest, tenant)
        return convert.model_to(model, aliases)
