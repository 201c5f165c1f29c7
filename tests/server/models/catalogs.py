"""Catalogues of models without a daemon."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.models.files import asking
from mlrs_server.storage import SqlStore, open_store
from mlrs_server.storage.tables import models


@dataclass(frozen=True)
class Catalogs:
    """Opens catalogues on one store, each as a process of its own would."""

    where: Path | str
    opened: ExitStack

    def __call__(self, *, default: Path | str | None = None) -> ModelCatalog:
        """Return another catalogue."""
        return ModelCatalog(asking(self.store()), default=None if default is None else str(default))

    def store(self) -> SqlStore:
        """Open the store once more."""
        return self.opened.enter_context(closing(open_store(self.where)))

    def damage(self, digest: str) -> None:
        """Flip a bit of a model's file."""
        store = self.store()
        data = bytearray(store.models([digest])[digest])
        data[-5] ^= 1
        with store.transaction() as connection:
            connection.execute(models.update().where(models.c.digest == digest).values(data=bytes(data)))
