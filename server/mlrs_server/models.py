"""The models that runs can name: those shipped with mlrs, and those imported into the data folder.

    DATA_DIR/models/<digest>.safetensors   a model, named by its content
    DATA_DIR/models/index.json             names and aliases by tenant, replaced atomically

A tenant sees the models that are shipped, those of the default tenant, and its own.

A model that a run was created with is kept in the data folder, shipped or not, so an upgrade of mlrs
changes no run. The index is read again when its file changed: an import is seen by a running daemon.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from mlrs_core.checkpoint import digest_of, read_model
from mlrs_core.errors import ModelFileError
from mlrs_core.model import Model
from mlrs_server.aliases import Changes
from mlrs_server.errors import AdvisorError, Reason, invalid_field
from mlrs_server.model_files import SHORT_DIGEST, CatalogModel, ModelFiles
from mlrs_server.model_index import Index, resolved
from mlrs_server.model_names import DEFAULT_ALIAS, NAME, ModelNames, model_name
from mlrs_server.names import full_name

__all__ = ["DEFAULT_ALIAS", "NAME", "SHORT_DIGEST", "CatalogModel", "ModelCatalog", "model_name"]

log = structlog.get_logger()


class ModelCatalog:
    """Finds models by name, alias or digest. Used from one thread."""

    def __init__(self, data_dir: Path, *, default: str | None = None) -> None:
        """Open the catalog of a data folder.

        Args:
            data_dir: the daemon's data folder.
            default: a model's name, or a file to import under its stem, for runs that name none.

        Raises:
            AdvisorError: the default does not exist or is no model, or the index is damaged.
        """
        self._folder = data_dir / "models"
        self._files = ModelFiles(self._folder)
        self._names = ModelNames(self._folder, self._files.shipped)
        self._index = self._names.read()
        self._found: dict[tuple[str, str], CatalogModel] = {}  # what `find` returned of this index
        if default is not None:
            self._names.default = self._resolve_default(default)

    def folder(self) -> Path:
        """Return the folder of the models' files, made if missing."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

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

    def find(self, reference: str, tenant: str = "") -> CatalogModel:
        """Return the model that a tenant calls by a name, an alias or `name@digest`; "" is the default.

        What is its own comes before what the default tenant shares with all.

        Raises:
            AdvisorError: there is none, or its file is damaged.
        """
        if (index := self._names.read()) is not self._index:
            self._index = index
            self._found.clear()
        wanted = reference or DEFAULT_ALIAS
        if (found := self._found.get((tenant, wanted))) is not None:
            return found
        spaces = self._names.spaces(tenant)
        meant = resolved(wanted, spaces)
        if meant is None:
            known = ", ".join(sorted({name for space in spaces for name in {*space.names, *space.aliases}}))
            raise AdvisorError(
                Reason.MODEL_NOT_FOUND,
                f"model: there is no model {wanted[:100]!r}; this daemon knows: {known}; "
                "`mlrs models import` adds one",
                field="model",
            )
        found = self._found[tenant, wanted] = self._files.load(*meant)
        return found

    def by_digest(self, digest: str, name: str) -> CatalogModel:
        """Return the model of a run that exists."""
        return self._files.load(digest, name)

    def all(self, tenant: str = "") -> list[CatalogModel]:
        """Return every model of a tenant, or shared with it, that can be read, ordered by reference."""
        models = dict[str, CatalogModel]()
        for space in self._names.spaces(tenant):
            for digest, name in space.origins.items():
                try:
                    model = self._files.load(digest, name)
                except AdvisorError as error:
                    log.warning("model_unreadable", problem=str(error))
                else:
                    models[model.ref] = model
        return [models[ref] for ref in sorted(models)]

    def aliases_of(self, model: CatalogModel, tenant: str = "") -> list[str]:
        """Return the aliases by which a tenant finds a model, sorted."""
        spaces = self._names.spaces(tenant)
        aliases = sorted({alias for space in spaces for alias in space.aliases})
        return [alias for alias in aliases if resolved(alias, spaces) == (model.digest, model.name)]

    # ----------------------------------------------------------------------------- writing

    def has(self, digest: str) -> bool:
        """Return whether a model's file is here."""
        return self._files.has(digest)

    def data_of(self, digest: str, name: str) -> bytes:
        """Return a model's file.

        Raises:
            AdvisorError: it is damaged or gone.
        """
        return self._files.read(digest, name)

    def take_in(self, digest: str, name: str, data: bytes, tenant: str) -> None:
        """Keep the file of a model that a run of a tenant has, and that another daemon kept.

        It is known to that tenant alone, by its reference.

        Raises:
            AdvisorError: the content does not match the digest, or the data folder cannot be written.
        """
        if digest_of(data) != digest:
            raise AdvisorError(
                Reason.MODEL_INVALID,
                f"model: the store's copy of {name}@{digest[:SHORT_DIGEST]} is damaged; import it again",
                field="model",
            )
        self._files.write(digest, data)
        self._names.change(lambda index: index.with_origin(full_name(tenant, digest), name))

    def keep(self, model: CatalogModel) -> None:
        """Copy a model into the data folder, where no upgrade of mlrs can lose it.

        Its name stays where it points: after an upgrade, new runs get the new model of that name.

        Raises:
            AdvisorError: its file is damaged or gone, or the data folder cannot be written.
        """
        if not self._files.is_kept(model.digest):
            self._files.write(model.digest, self._files.read(model.digest, model.name))
            self._names.change(lambda index: index.with_origin(model.digest, model.name))

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
            AdvisorError: the name is malformed, or another model's and `replace` is not set, or the data
                folder cannot be written.
        """
        self._names.check_name(name, tenant)
        return self.register(self.prepared(model, name), tenant, replace=replace)

    def check_name(self, name: str, tenant: str = "") -> None:
        """Check the name that a model is to be imported under; see `ModelNames`."""
        self._names.check_name(name, tenant)

    def check_alias(self, alias: str, tenant: str = "") -> None:
        """Check that a tenant may point an alias somewhere; see `ModelNames`."""
        self._names.check_alias(alias, tenant)

    def prepared(self, model: Model, name: str) -> CatalogModel:
        """Write a model's file, and return the model as it will be; on any thread. No name points at it yet.

        Raises:
            AdvisorError: the data folder cannot be written.
        """
        return self._files.prepared(model, name)

    def register(self, model: CatalogModel, tenant: str = "", *, replace: bool = False) -> CatalogModel:
        """Have a tenant's runs find a model that was prepared, by its name.

        Raises:
            AdvisorError: as `add`.
        """

        def named(index: Index) -> Index:
            self._names.check_name(model.name, tenant)
            taken = self._names.spaces(tenant)[0].names.get(model.name)
            if taken not in (None, model.digest) and not replace:
                raise AdvisorError(
                    Reason.MODEL_EXISTS,
                    f"name: {model.name!r} is the model {model.name}@{str(taken)[:SHORT_DIGEST]}; choose "
                    "another name, or replace it with `mlrs models import --replace` beside the daemon (runs "
                    "keep the model they began with)",
                    field="name",
                )
            return index.with_model(tenant, model.name, model.digest)

        self._names.change(named)
        self._files.add(model)
        return model

    def set_alias(self, alias: str, reference: str, tenant: str = "") -> CatalogModel:
        """Point an alias of a tenant at a model, by its name or a reference; return the model.

        An alias of a name goes where the name goes.

        Raises:
            AdvisorError: the alias is malformed, or a model's name, or there is no such model, or the data
                folder cannot be written.
        """
        self._names.check_alias(alias, tenant)
        if not reference:
            raise invalid_field("model", "must be a model's name, or name@digest")
        found = self.find(reference, tenant)
        target = reference if reference == found.name else found.ref
        self._names.change(lambda index: self._names.pointed(index, tenant, alias, target, "set"))
        return found

    def register_version(self, model: CatalogModel, tenant: str, alias: str = "") -> CatalogModel:
        """Have a tenant's runs find a new version of a model, prepared: by its reference, and an alias.

        The name stays where it points.

        Raises:
            AdvisorError: as `check_alias`, or the data folder cannot be written.
        """

        def registered(index: Index) -> Index:
            index = index.with_origin(full_name(tenant, model.digest), model.name)
            return self._names.pointed(index, tenant, alias, model.ref, "promote") if alias else index

        self._names.change(registered)
        self._files.add(model)
        return model

    def rollback_alias(self, alias: str, tenant: str = "") -> CatalogModel:
        """Point an alias of a tenant back at what it pointed at before; return the model.

        Raises:
            AdvisorError: as `check_alias`; or there is no such alias, it has nothing to go back to, or the
                model of before is gone.
        """

        def back(index: Index) -> Index:
            target = self._names.target_before(alias, tenant)
            self.find(target, tenant)
            return self._names.pointed(index, tenant, alias, target, "rollback")

        self._names.check_alias(alias, tenant)
        self._names.change(back)
        return self.find(alias, tenant)

    def alias_changes(self, alias: str, tenant: str = "") -> Changes:
        """Return what a tenant's alias has pointed at, or one that is shared with it, the newest first.

        Raises:
            AdvisorError: there is no such alias.
        """
        return self._names.changes_of(alias, tenant)[::-1]
