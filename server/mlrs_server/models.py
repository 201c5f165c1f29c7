"""The models that runs can name: those shipped with mlrs, and those in the store.

A tenant sees the models that are shipped, those of the default tenant, and its own. A model that a run was
created with is kept in the store, shipped or not, so an upgrade of mlrs changes no run.

What a name means is looked up in memory, after a look at the store's revision: whichever replica changed it,
the next call sees it. Reading a model, checking it against its digest and making it ready to serve happens
once; then it stays in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from mlrs_core.checkpoint import digest_of, dump_model, parse_model, read_model
from mlrs_core.errors import ModelFileError
from mlrs_core.model import Model
from mlrs_core.policy import Policy
from mlrs_server.aliases import Changes
from mlrs_server.errors import AdvisorError, Reason, invalid_field
from mlrs_server.model_index import Index
from mlrs_server.model_names import DEFAULT_ALIAS, NAME, ModelNames, model_name
from mlrs_server.store import Store

__all__ = ["DEFAULT_ALIAS", "NAME", "SHORT_DIGEST", "CatalogModel", "ModelCatalog", "ModelsNow", "model_name"]

log = structlog.get_logger()

T = TypeVar("T")
SHORT_DIGEST = 12
"""Digits of the digest in a reference."""


class AskStore(Protocol):
    """Does something with the store, on the thread that it is used from, and waits for it."""

    def __call__(self, work: Callable[[Store], T], /) -> T:
        """Return what the work returns."""
        ...


def asking(store: Store, executor: Executor | None = None) -> AskStore:
    """Return the way to a store that is used from an executor's one thread, or from whichever asks."""

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
        """`name@digest`, with the digest's first digits."""
        return _ref(self.name, self.digest)


@dataclass(frozen=True)
class ModelsNow:
    """What references to models mean at one moment. Nothing here waits: the models are in memory."""

    catalog: ModelCatalog
    names: ModelNames

    def find(self, reference: str, tenant: str) -> CatalogModel:
        """Return the model that a tenant calls by a reference; see `ModelCatalog.find`."""
        return self.catalog.by_digest(*self.names.meaning(reference, tenant))


class ModelCatalog:
    """Finds models by name, alias or digest.

    Its methods wait for the store, and compute: on any thread but an event loop's. What they change in memory
    is replaced as a whole.
    """

    def __init__(self, ask: AskStore, *, default: str | None = None) -> None:
        """Use the models of a store.

        Args:
            ask: the way to the store.
            default: a model's name, or a file to import under its stem, for runs that name none.

        Raises:
            AdvisorError: the default does not exist or is no model, or the store fails.
        """
        self._ask = ask
        self._shipped = _shipped_files()
        self._loaded = dict[str, CatalogModel]()
        self._unreadable = dict[str, AdvisorError]()
        self.names = ModelNames({name: digest for digest, (name, _) in self._shipped.items()})
        """Names and aliases as they were read last."""
        if default is not None:
            self.names = replace(self.names, default=self._resolve_default(default))

    def _resolve_default(self, default: str) -> str:
        path = Path(default)
        if path.suffix != ".safetensors":
            return self.find(default).ref
        try:
            return self.add_file(path, path.stem).ref
        except AdvisorError as error:
            if error.field != "name":
                raise
            raise AdvisorError(
                error.reason,
                f"model: the file {path} gives the model its name: {error}; rename it, or import it under "
                "another name with `mlrs models import`",
                field="model",
            ) from error

    # ----------------------------------------------------------------------------- reading

    def names_in(self, store: Store) -> ModelNames:
        """Return names and aliases as a store has them now; on the store's thread."""
        index = store.model_index(self.names.index)
        if index is not self.names.index:
            self.names = replace(self.names, index=index)
        return self.names

    def find(self, reference: str, tenant: str = "") -> CatalogModel:
        """Return the model that a tenant calls by a name, an alias or `name@digest`; "" is the default.

        What is its own comes before what the default tenant shares with all.

        Raises:
            AdvisorError: there is none, or its file is damaged, or the store fails.
        """
        return self._load(*self._ask(self.names_in).meaning(reference, tenant))

    def by_digest(self, digest: str, name: str) -> CatalogModel:
        """Return a model of which only the digest counts; at once, on any thread, if it is loaded.

        Raises:
            AdvisorError: its file is damaged or gone.
        """
        if digest not in self._loaded and (error := self._unreadable.get(digest)) is not None:
            raise error.with_traceback(None)  # it may be raised often
        return self._load(digest, name)

    def load(self, models: Iterable[tuple[str, str]]) -> None:
        """Have models, by digest and name, in memory; one that cannot be read is an error of `by_digest`."""
        for digest, name in models:
            try:
                self._load(digest, name)
            except AdvisorError as error:
                self._unreadable[digest] = error

    def is_loaded(self, digest: str) -> bool:
        """Return whether a model is in memory."""
        return digest in self._loaded

    def _load(self, digest: str, name: str) -> CatalogModel:
        """Return a model by a name.

        Raises:
            AdvisorError: its file is damaged or gone, or the store fails.
        """
        if (loaded := self._loaded.get(digest)) is None:
            data = self._file_of(digest, name)
            try:
                model = parse_model(data)
            except ModelFileError as error:
                raise _unreadable(name, digest, error) from error
            found = CatalogModel(name, digest, model, model.policy(), len(data))
            loaded = self._loaded.setdefault(digest, found)
        self._unreadable.pop(digest, None)
        return loaded if loaded.name == name else replace(loaded, name=name)

    def _file_of(self, digest: str, name: str) -> bytes:
        if digest in self._shipped:
            return self._shipped[digest][1]
        data = self._ask(lambda store: store.models([digest])).get(digest)
        if data is None:
            raise _unreadable(name, digest, "the store does not have it")
        if digest_of(data) != digest:
            raise _unreadable(name, digest, "its content does not match its digest")
        return data

    def page(self, tenant: str = "", *, after: str = "", limit: int | None = None) -> list[CatalogModel]:
        """Return models of a tenant, or shared with it, that can be read, ordered by reference.

        Every name of a model is listed.

        Args:
            tenant: whose.
            after: the reference beyond which to begin.
            limit: how many, at most.
        """
        models = list[CatalogModel]()
        for name, digest in sorted(self._ask(self.names_in).known_to(tenant), key=lambda one: _ref(*one)):
            if _ref(name, digest) <= after:
                continue
            try:
                models.append(self._load(digest, name))
            except AdvisorError as error:
                log.warning("model_unreadable", problem=str(error))
            if len(models) == limit:
                break
        return models

    def alias_changes(self, alias: str, tenant: str = "") -> Changes:
        """Return what a tenant's alias has pointed at, or one that is shared with it, the newest first.

        Raises:
            AdvisorError: there is no such alias, or the store fails.
        """
        return self._ask(self.names_in).changes_of(alias, tenant)[::-1]

    # ----------------------------------------------------------------------------- writing

    def _change(
        self, change: Callable[[ModelNames], Index], files: Mapping[str, bytes] | None = None
    ) -> None:
        """Change names, while nobody else does, and keep files.

        Raises:
            AdvisorError: as the change, or the store fails.
        """

        def changed(store: Store) -> None:
            index = store.change_models(lambda index: change(replace(self.names, index=index)), files or {})
            self.names = replace(self.names, index=index)

        self._ask(changed)

    def is_kept(self, digest: str) -> bool:
        """Return whether a model is known to be in the store, where no upgrade of mlrs can lose it."""
        return digest not in self._shipped or any(digest == kept for _, kept in self.names.index.models)

    def keep(self, model: CatalogModel) -> None:
        """Copy a model that is shipped into the store.

        Its name stays where it points: after an upgrade, new runs get the new model of that name.

        Raises:
            AdvisorError: the store fails.
        """
        data = self._file_of(model.digest, model.name)
        self._change(
            lambda names: names.index.with_version("", model.name, model.digest), {model.digest: data}
        )

    def add_file(self, path: Path, name: str, *, replace: bool = False) -> CatalogModel:
        """Import a model file under a name.

        Raises:
            AdvisorError: it cannot be read as a model, or as `add`.
        """
        try:
            model, _ = read_model(path)
        except (ModelFileError, OSError) as error:
            raise AdvisorError(Reason.MODEL_INVALID, f"model: {error}", field="model") from error
        return self.add(model, name, replace=replace)

    def add(self, model: Model, name: str, tenant: str = "", *, replace: bool = False) -> CatalogModel:
        """Import a model under a name of a tenant.

        Raises:
            AdvisorError: the name is malformed, or another model's and `replace` is not set, or the store
                fails.
        """
        added, data = _made(model, name)

        def named(names: ModelNames) -> Index:
            names.check_name(name, tenant)
            taken = names.spaces(tenant)[0].names.get(name)
            if taken not in (None, added.digest) and not replace:
                raise AdvisorError(
                    Reason.RUN_EXISTS,
                    f"name: {name!r} is the model {_ref(name, str(taken))}; choose another name, or replace "
                    "it with `mlrs models import --replace` beside the daemon (runs keep the model they "
                    "began with)",
                    field="name",
                )
            return names.index.with_model(tenant, name, added.digest)

        self._change(named, {added.digest: data})
        self._loaded.setdefault(added.digest, added)
        return added

    def add_version(self, model: Model, name: str, tenant: str, alias: str = "") -> CatalogModel:
        """Import a new version of a model, which a tenant's runs find by its reference and an alias.

        The name stays where it points.

        Raises:
            AdvisorError: the alias cannot be pointed there, or the store fails.
        """
        added, data = _made(model, name)

        def registered(names: ModelNames) -> Index:
            index = names.index.with_version(tenant, name, added.digest)
            if not alias:
                return index
            return replace(names, index=index).pointed(tenant, alias, added.ref, "promote")

        self._change(registered, {added.digest: data})
        self._loaded.setdefault(added.digest, added)
        return added

    def set_alias(self, alias: str, reference: str, tenant: str = "") -> CatalogModel:
        """Point an alias of a tenant at a model, by its name or a reference; return the model.

        An alias of a name goes where the name goes.

        Raises:
            AdvisorError: the alias is malformed, or a model's name, or there is no such model, or the store
                fails.
        """
        self.names.check_alias(alias, tenant)
        if not reference:
            raise invalid_field("model", "must be a model's name, or name@digest")
        found = self.find(reference, tenant)
        target = reference if reference == found.name else found.ref
        self._change(lambda names: names.pointed(tenant, alias, target, "set"))
        return found

    def rollback_alias(self, alias: str, tenant: str = "") -> CatalogModel:
        """Point an alias of a tenant back at what it pointed at before; return the model.

        Raises:
            AdvisorError: the alias is malformed or there is none, it has nothing to go back to, the model of
                before is gone, or the store fails.
        """
        self.find(self._ask(self.names_in).target_before(alias, tenant), tenant)
        self._change(
            lambda names: names.pointed(tenant, alias, names.target_before(alias, tenant), "rollback")
        )
        return self.find(alias, tenant)


def _ref(name: str, digest: str) -> str:
    return f"{name}@{digest[:SHORT_DIGEST]}"


def _made(model: Model, name: str) -> tuple[CatalogModel, bytes]:
    """Return a model by a name, and its file."""
    data = dump_model(model)
    return CatalogModel(name, digest_of(data), model, model.policy(), len(data)), data


def _unreadable(name: str, digest: str, problem: object) -> AdvisorError:
    return AdvisorError(
        Reason.MODEL_INVALID,
        f"model: {_ref(name, digest)} cannot be read: {problem}; import it again",
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
