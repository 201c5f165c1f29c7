"""What runs need before they are opened: their models in memory, and the machine code that serves them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from mlrs_server.errors import AdvisorError
from mlrs_server.live.machine_code import MachineCode
from mlrs_server.live.policies import models_of
from mlrs_server.live.stored_runs import StoredRuns
from mlrs_server.models.catalog import ModelCatalog, ModelsNow
from mlrs_server.runs.open_request import OpenRequest, run_to_create
from mlrs_server.storage import NewRun, StoredRun
from mlrs_server.tenancy import tenant_of


class RunNeeds:
    """Loads models, and has code made. Used from one event loop."""

    def __init__(self, stored: StoredRuns, catalog: ModelCatalog, code: MachineCode) -> None:
        """Load models of `catalog`, by the names that the store of `stored` has."""
        self._stored = stored
        self._catalog = catalog
        self._code = code

    async def prepare_code(self, requests: Sequence[OpenRequest]) -> None:
        """Have the code that requests ask for compiled, if need be, before anything waits for this call.

        What other runs of theirs need is waited for later.
        """
        special = {
            (one.model, tenant_of(one.run_id), one.asked.meta is not None, one.asked.rescue): one
            for one in requests
            if one.model or one.asked.meta or one.asked.rescue
        }
        if not special:
            return
        models, runs = await self.models(list(special.values()), {}), list[NewRun]()
        for request in special.values():
            with suppress(AdvisorError):  # raised again when the request is checked
                runs.append(run_to_create(request, models))
        await self._code.ready_for(runs)

    async def models(self, requests: Sequence[OpenRequest], runs: Mapping[str, StoredRun]) -> ModelsNow:
        """Load the models of runs and of requests into memory; return what references mean now."""
        asked = {
            (request.model, tenant_of(request.run_id))
            for request in requests
            if request.model or (request.asked.schedule is None and request.run_id not in runs)
        }
        names = await self._stored.in_store(self._catalog.names_in) if asked else self._catalog.names
        wanted = models_of(runs.values())
        for reference, tenant in asked:
            with suppress(AdvisorError):  # raised again when the request is checked
                wanted.add(names.meaning(reference, tenant))
        await self.load(wanted)
        return ModelsNow(self._catalog, names)

    async def load(self, models: Iterable[tuple[str, str]]) -> None:
        """Load models, by digest and name, into memory."""
        if missing := [model for model in models if not self._catalog.files.is_loaded(model[0])]:
            await asyncio.to_thread(self._catalog.files.load_all, missing)
