"""Models of runs go through the store that daemons share: they share no folder."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from mlrs_server.live import LiveRuns
from mlrs_server.models import ModelCatalog
from mlrs_server.names import tenant_of
from mlrs_server.store import NewRun, Store, StoredRun


class SharedModels:
    """Sees to it that whoever owns a run has its model. Used from one event loop."""

    def __init__(self, live: LiveRuns, catalog: ModelCatalog) -> None:
        """`live` is the way to the store."""
        self._live = live
        self._catalog = catalog
        self._offered: set[str] = set()

    async def offer(self, new: Iterable[NewRun]) -> None:
        """Keep the models of runs that are about to be created in the store.

        Raises:
            AdvisorError: a model's file is damaged or gone, or the store fails.
        """
        names = {run.model_digest: run.model_name for run in new if run.config.schedule is None}
        for digest, name in names.items():
            if digest not in self._offered:
                data = self._catalog.data_of(digest, name)
                await self._live.in_store(partial(_keep, digest, data))
                self._offered.add(digest)

    async def fetch(self, runs: Iterable[StoredRun]) -> None:
        """Take the models of runs into the catalogue that are not there.

        Raises:
            AdvisorError: the store fails, or its copy is damaged. What it lacks, loading the run reports.
        """
        wanted = {
            run.model_digest: run
            for run in runs
            if run.config.schedule is None and not self._catalog.has(run.model_digest)
        }
        if wanted:
            found = await self._live.in_store(lambda store: store.models(list(wanted)))
            for digest, data in found.items():
                run = wanted[digest]
                self._catalog.take_in(digest, run.model_name, data, tenant_of(run.run_id))


def _keep(digest: str, data: bytes, store: Store) -> None:
    store.keep_model(digest, data)
