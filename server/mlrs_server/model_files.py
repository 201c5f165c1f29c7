"""The files of models: those in the package, and those in the data folder, each named by its content."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path

from mlrs_core.checkpoint import digest_of, dump_model, parse_model
from mlrs_core.errors import ModelFileError
from mlrs_core.model import Model
from mlrs_core.policy import Policy
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.files import write_atomically

SHORT_DIGEST = 12
"""Digits of the digest in a reference."""


@dataclass(frozen=True)
class CatalogModel:
    """A model by name, ready to serve."""

    name: str
    digest: str
    model: Model
    policy: Policy = field(repr=False)
    size_bytes: int

    @property
    def ref(self) -> str:
        """`name@digest`, with the digest's first digits."""
        return f"{self.name}@{self.digest[:SHORT_DIGEST]}"


class ModelFiles:
    """Reads and writes models of one folder. What was read once stays in memory."""

    def __init__(self, folder: Path) -> None:
        """Use a folder; it need not exist."""
        self.folder = folder
        self.shipped = _shipped_digests()
        """The names of the models in the package, by digest."""
        self._loaded: dict[str, CatalogModel] = {}

    def has(self, digest: str) -> bool:
        """Return whether a model's file is here."""
        return digest in self._loaded or digest in self.shipped or self.is_kept(digest)

    def is_kept(self, digest: str) -> bool:
        """Return whether it is in the folder."""
        return self._path(digest).exists()

    def load(self, digest: str, name: str) -> CatalogModel:
        """Return a model by a name.

        Raises:
            AdvisorError: its file is damaged or gone.
        """
        if digest not in self._loaded:
            data = self.read(digest, name)
            with _readable(digest, name):
                model = parse_model(data)
            self._loaded[digest] = CatalogModel(name, digest, model, model.policy(), len(data))
        loaded = self._loaded[digest]
        return loaded if loaded.name == name else replace(loaded, name=name)

    def add(self, model: CatalogModel) -> None:
        """Keep a model whose file was written in memory."""
        self._loaded.setdefault(model.digest, model)

    def read(self, digest: str, name: str) -> bytes:
        """Return a model's file, checked against its digest.

        Raises:
            AdvisorError: it is damaged or gone.
        """
        with _readable(digest, name):
            if digest in self.shipped and not self.is_kept(digest):
                data = (resources.files("mlrs_core") / "models" / f"{name}.safetensors").read_bytes()
            else:
                data = self._path(digest).read_bytes()
            if digest_of(data) != digest:
                raise ModelFileError("its content does not match its digest")
        return data

    def write(self, digest: str, data: bytes) -> None:
        """Write a model's file.

        Raises:
            AdvisorError: the folder cannot be written.
        """
        write_atomically(self._path(digest), data, what="models")

    def prepared(self, model: Model, name: str) -> CatalogModel:
        """Write a model's file, and return the model as it will be; on any thread.

        Raises:
            AdvisorError: the folder cannot be written.
        """
        data = dump_model(model)
        digest = digest_of(data)
        self.write(digest, data)
        return CatalogModel(name, digest, model, model.policy(), len(data))

    def _path(self, digest: str) -> Path:
        return self.folder / f"{digest}.safetensors"


@contextmanager
def _readable(digest: str, name: str) -> Iterator[None]:
    """Turn the exceptions of reading a model into the daemon's."""
    try:
        yield
    except (ModelFileError, OSError) as error:
        raise AdvisorError(
            Reason.MODEL_INVALID,
            f"model: {name}@{digest[:SHORT_DIGEST]} cannot be read: {error}; import it again",
            field="model",
        ) from error


def _shipped_digests() -> dict[str, str]:
    """Return the names of the models in the package, by digest."""
    folder = resources.files("mlrs_core") / "models"
    return {
        digest_of(entry.read_bytes()): entry.name.removesuffix(".safetensors")
        for entry in folder.iterdir()
        if entry.name.endswith(".safetensors")
    }
