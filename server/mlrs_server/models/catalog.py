"""The models that runs can name: those shipped with mlrs, and those in the store.

A tenant sees the models that are shipped, those of the default tenant, and its own. A model that a run was
created with is kept in the store, shipped or not, so an upgrade of mlrs changes no run.

What a name means is looked up in memory, after a look at the store's revision: whichever replica changed it,
the next call sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from mlrs_core.errors import ModelFileError
from mlrs_core.models.checkpoint import read_model
from mlrs_core.models.model import Model
from mlrs_server.domain.aliases import Changes
from mlrs_server.domain.model_index import Index
from mlrs_server.errors import AdvisorError, Reason, invalid_field
from mlrs_server.models.files import AskStore, CatalogModel, ModelFiles, packed, reference
from mlrs_server.models.names import ModelNames
from mlrs_server.storage import Store

log = structlog.get_logger()


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
        self.files = ModelFiles(ask)
        self.names = ModelNames(self.files.shipped())
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
        return self.files.load(*self._ask(self.names_in).meaning(reference, tenant))

    def by_digest(self, digest: str, name: str) -> CatalogModel:
        """Return the model of a run that exists; see `ModelFiles.by_digest`."""
        return self.files.by_digest(digest, name)

    def page(self, tenant: str = "", *, after: str = "", limit: int | None = None) -> list[CatalogModel]:
        """Return models of a tenant, or shared with it, that can be read, ordered by reference.

        Every name of a model is listed.

        Args:
            tenant: whose.
            after: the reference beyond which to begin.
            limit: how many, at most.
        """
        models = list[CatalogModel]()
        known = self._ask(self.names_in).known_to(tenant)
        for name, digest in sorted(known, key=lambda model: reference(*model)):
            if reference(name, digest) <= after:
                continue
            try:
                models.append(self.files.load(digest, name))
            except AdvisorError as error:
                log.warning("model_unreadable", problem=str(error))
            if len(models) == limit:
                break
        return models

    def alias_changes(self, alias: str, tenant: str = "") -> Changes:
        """Return the targets of an alias of a tenant, or shared with it, the newest first.

        Raises:
            AdvisorError: there is no such alias, or the store fails.
        """
        return self._ask(self.names_in).changes_of(alias, tenant)[::-1]

    # ----------------------------------------------------------------------------- writing

    def _change(
        self, change: Callable[[ModelNames], Index], files: Mapping[str, bytes] | None = None
    ) -> None:
        """Change names and store files, excluding concurrent changes."""

        def changed(store: Store) -> None:
            index = store.change_models(lambda index: change(replace(self.names, index=index)), files or {})
            self.names = replace(self.names, index=index)

        self._ask(changed)

    def is_stored(self, digest: str) -> bool:
        """Return whether a model is known to be in the store, where an upgrade of mlrs cannot remove it."""
        known = self.names.index.models
        return not self.files.is_shipped(digest) or any(digest == stored for _, stored in known)

    def store_shipped(self, model: CatalogModel) -> None:
        """Copy a shipped model into the store.

        Its name is not changed: after an upgrade, new runs get the new model of that name.

        Raises:
            AdvisorError: the store fails.
        """
        data = self.files.file_of(model.digest, model.name)
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
        added, data = packed(model, name)

        def named(names: ModelNames) -> Index:
            names.check_name(name, tenant)
            taken = names.spaces(tenant)[0].names.get(name)
            if taken not in (None, added.digest) and not replace:
                raise AdvisorError(
                    Reason.MODEL_EXISTS,
                    f"name: {name!r} is the model {reference(name, str(taken))}; choose another name, or "
                    "replace it with `mlrs models import --replace` (runs keep the model they began with)",
                    field="name",
                )
            return names.index.with_model(tenant, name, added.digest)

        self._change(named, {added.digest: data})
        self.files.add(added)
        return added

    def add_version(self, model: Model, name: str, tenant: str, alias: str = "") -> CatalogModel:
        """Import a new version of a model, which a tenant's runs find by its reference and an alias.

        The name stays where it points.

        Raises:
            AdvisorError: the alias cannot be pointed there, or the store fails.
        """
        added, data = packed(model, name)

        def registered(names: ModelNames) -> Index:
            index = names.index.with_version(tenant, name, added.digest)
            if not alias:
                return index
            return replace(names, index=index).pointed(tenant, alias, added.ref, "promote")

        self._change(registered, {added.digest: data})
        self.files.add(added)
        return added

    def set_alias(self, alias: str, wanted: str, tenant: str = "") -> CatalogModel:
        """Point an alias of a tenant at a model, by its name or a reference; return the model.

        An alias of a name goes where the name goes.

        Raises:
            AdvisorError: the alias is malformed, or a model's name, or there is no such model, or the store
                fails.
        """
        self.names.check_alias(alias, tenant)
        if not wanted:
            raise invalid_field("model", "must be a model's name, or name@digest")
        found = self.find(wanted, tenant)
        target = wanted if wanted == found.name else found.ref
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
