"""Uploads of models in chunks: into a temporary file of bounded size, which is parsed when complete."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from mlrs_core.errors import ModelFileError
from mlrs_core.models.checkpoint import parse_model
from mlrs_core.models.model import Model
from mlrs_server.auth.limits import Usage
from mlrs_server.errors import AdvisorError, Reason, invalid_field
from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.models.files import CatalogModel


class Upload:
    """An upload of a model's file. A context manager, which removes the temporary file at its end."""

    def __init__(self, catalog: ModelCatalog, folder: Path, name: str, tenant: str, usage: Usage) -> None:
        """Start an upload; the temporary file, without a name, is in `folder`.

        Raises:
            AdvisorError: the name is malformed, or is an alias.
        """
        catalog.names.check_name(name, tenant)
        self._catalog, self._folder = catalog, folder
        self._name, self._tenant, self._usage = name, tenant, usage
        self._size = 0
        self._file: IO[bytes] | None = None

    async def add(self, piece: bytes) -> None:
        """Add the next chunk.

        Raises:
            AdvisorError: the file exceeds the tenant's limit, or cannot be written.
        """
        self._size += len(piece)
        if self._size > (most := self._usage.limits.max_model_bytes):
            raise self._usage.exceeded("max_model_bytes", most, "the model's file is larger")
        await asyncio.to_thread(self._write, piece)

    def _write(self, piece: bytes) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  # __exit__ does
            self._file.write(piece)
        except OSError as error:
            raise AdvisorError(
                Reason.STORE,
                f"the upload cannot be written: {error.strerror or error}; free the daemon's disk",
            ) from error

    async def done(self, digest: str) -> CatalogModel:
        """Add the model to the catalogue, and return it.

        Args:
            digest: SHA-256 of the file in hexadecimal, checked unless "".

        Raises:
            AdvisorError: the file is not a model or has another digest, or another model has the name.
        """
        return await asyncio.to_thread(self._added, digest)

    def _added(self, digest: str) -> CatalogModel:
        return self._catalog.add(self._parsed(digest), self._name, self._tenant)

    def _parsed(self, digest: str) -> Model:
        if self._file is None:
            raise invalid_field("chunk", "the file has no chunk")
        self._file.seek(0)
        data = self._file.read()
        if digest and (found := hashlib.sha256(data).hexdigest()) != digest.lower():
            raise invalid_field("header.digest", f"the file's is {found}; send it again")
        try:
            return parse_model(data)
        except ModelFileError as error:
            raise AdvisorError(Reason.MODEL_INVALID, f"model: {error}", field="model") from error

    def __enter__(self) -> Self:
        """Return the upload."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file, which removes it."""
        if self._file is not None:
            self._file.close()
