"""Model files, shipped or stored, and the same models in memory, ready to serve."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Protocol, TypeVar

from mlrs_core.errors import ModelFileError
from mlrs_core.models.checkpoint import digest_of, dump_model, parse_model
from mlrs_core.models.model import Model
from mlrs_core.policy import Policy
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.storage import Store

T = TypeVar("T")
SHORT_DIGEST = 12
"""The number of digits of the digest in a reference."""


class AskStore(Protocol):
    """Runs a function of the store on the store's thread, and waits for its result."""

    def __call__(self, work: Callable[[Store], T], /) -> T:
        """Return what the work returns."""
        ...


def asking(store: Store, executor: Executor | None = None) -> AskStore:
    """Return an `AskStore` that uses an executor's one thread, or without one the calling thread."""

    def ask(work: Callable[[Store], T], /) -> T:
        return work(store) if executor is None else executor.submit(work, store).result()

    return ask


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
        """The unique reference of the model, `name@digest`."""
        return reference(self.name, self.digest)


class ModelFiles:
    """Reads models, each once: checks it against its digest, parses it and makes it ready to serve.

    May be used from several threads at once, but for an event loop's where a method waits for the store.
    """

    def __init__(self, ask: AskStore) -> None:
        """Read shipped models, and those of the store that `ask` uses."""
        self._ask = ask
        self._shipped = _shipped_files()
        self._loaded = dict[str, CatalogModel]()
        self._unreadable = dict[str, AdvisorError]()

    def shipped(self) -> dict[str, str]:
        """Return the digests of the models in the package, by name."""
        return {name: digest for digest, (name, _) in self._shipped.items()}

    def is_shipped(self, digest: str) -> bool:
        """Return whether a model is in the package."""
        return digest in self._shipped

    def by_digest(self, digest: str, name: str) -> CatalogModel:
        """Return the model of a digest under a name; without waiting, on any thread, if it is loaded.

        Raises:
            AdvisorError: its file is damaged or gone.
        """
        if digest not in self._loaded and (error := self._unreadable.get(digest)) is not None:
            raise error.with_traceback(None)  # it may be raised often
        return self.load(digest, name)

    def load_all(self, models: Iterable[tuple[str, str]]) -> None:
        """Load models, by digest and name; for one that cannot be read, `by_digest` raises the error."""
        for digest, name in models:
            try:
                self.load(digest, name)
            except AdvisorError as error:
                self._unreadable[digest] = error

    def is_loaded(self, digest: str) -> bool:
        """Return whether a model is in memory."""
        return digest in self._loaded

    def load(self, digest: str, name: str) -> CatalogModel:
        """Return a model by a name.

        Raises:
            AdvisorError: its file is damaged or gone, or the store fails.
        """
        if (loaded := self._loaded.get(digest)) is None:
            data = self.file_of(digest, name)
            try:
                model = parse_model(data)
            except ModelFileError as error:
                raise _unreadable(name, digest, error) from error
            found = CatalogModel(name, digest, model, model.policy(), len(data))
            loaded = self._loaded.setdefault(digest, found)
        self._unreadable.pop(digest, None)
        return loaded if loaded.name == name else replace(loaded, name=name)

    def file_of(self, digest: str, name: str) -> bytes:
        """Return a model's file.

        Raises:
            AdvisorError: as `load`.
        """
        if digest in self._shipped:
            return self._shipped[digest][1]
        data = self._ask(lambda store: store.models([digest])).get(digest)
        if data is None:
            raise _unreadable(name, digest, "the store does not have it")
        if digest_of(data) != digest:
            raise _unreadable(name, digest, "its content does not match its digest")
        return data

    def add(self, model: CatalogModel) -> None:
        """Add a new model to those in memory."""
        self._loaded.setdefault(model.digest, model)


def reference(name: str, digest: str) -> str:
    """Return `name@digest`, with the digest's first digits."""
    return f"{name}@{digest[:SHORT_DIGEST]}"


def packed(model: Model, name: str) -> tuple[CatalogModel, bytes]:
    """Return a model by a name, and its file."""
    data = dump_model(model)
    return CatalogModel(name, digest_of(data), model, model.policy(), len(data)), data


def _unreadable(name: str, digest: str, problem: object) -> AdvisorError:
    return AdvisorError(
        Reason.MODEL_INVALID,
        f"model: {reference(name, digest)} cannot be read: {problem}; import it again",
        field="model",
    )


def _shipped_files() -> dict[str, tuple[str, bytes]]:
    """Return the names and the files of the models in the package, by digest."""
    folder = resources.files("mlrs_core") / "models"
    files = {
        entry.name.removesuffix(".safetensors"): entry.read_bytes()
        for entry in folder.iterdir()
        if entry.name.endswith(".safetensors")
    }
    return {digest_of(data): (name, data) for name, data in files.items()}
