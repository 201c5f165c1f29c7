"""The models that runs can name: those shipped with mlrs, and those imported into the data folder.

    DATA_DIR/models/<digest>.safetensors   a model, named by its content
    DATA_DIR/models/index.json             names and aliases, replaced atomically

A model that a run was created with is kept in the data folder, shipped or not, so an upgrade of mlrs
changes no run. The index is read again when its file changed: an import is seen by a running daemon.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import structlog

from mlrs_core.checkpoint import digest_of, dump_model, parse_model, read_model
from mlrs_core.errors import ModelFileError
from mlrs_core.model import Model
from mlrs_core.policy import Policy
from mlrs_server.errors import AdvisorError, Reason, invalid_field

log = structlog.get_logger()

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""What a model's name or an alias looks like."""
DEFAULT_ALIAS = "default"
"""The alias of the model that a run gets when it names none."""
SHIPPED_DEFAULT = "mlr-snet"
"""Where the alias points until someone says otherwise."""
SHORT_DIGEST = 12
"""Digits of the digest in a reference."""
MIN_DIGEST = 8
"""The fewest digits that a reference may give."""


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


@dataclass(frozen=True)
class _Index:
    """Names and aliases."""

    names: dict[str, str] = field(default_factory=dict)
    """Digest by name."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Name by alias."""
    origins: dict[str, str] = field(default_factory=dict)
    """The name each digest was imported under."""


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
        self._index_file = self._folder / "index.json"
        self._loaded: dict[str, CatalogModel] = {}
        self._found: dict[str, CatalogModel] = {}  # what `find` returned, until the index changes
        self._shipped = _shipped_digests()
        self._index, self._stamp = _Index(), (-1, -1)
        self._default = ""
        self._reload()
        if default is not None:
            self._default = self._resolve_default(default)

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

    def find(self, reference: str) -> CatalogModel:
        """Return the model that a name, an alias or `name@digest` names; "" is the default.

        Raises:
            AdvisorError: there is none, or its file is damaged.
        """
        self._reload()
        wanted = reference or self._default or DEFAULT_ALIAS
        if (found := self._found.get(wanted)) is not None:
            return found
        name, _, digits = self._aliases().get(wanted, wanted).partition("@")
        named = {digest for digest in (self._names().get(name),) if digest}
        if digits:
            known_as = named | {digest for digest, origin in self._origins().items() if origin == name}
            matching = {digest for digest in known_as if digest.startswith(digits)}
            candidates = matching if len(digits) >= MIN_DIGEST else set()
        else:
            candidates = named
        if len(candidates) != 1:
            known = ", ".join(sorted({*self._names(), *self._aliases()}))
            raise AdvisorError(
                Reason.MODEL_NOT_FOUND,
                f"model: there is no model {wanted[:100]!r}; this daemon knows: {known}; "
                "`mlrs models import` adds one",
                field="model",
            )
        found = self._found[wanted] = self._load(candidates.pop(), name)
        return found

    def by_digest(self, digest: str, name: str) -> CatalogModel:
        """Return the model of a run that exists."""
        return self._load(digest, name)

    def all(self) -> list[CatalogModel]:
        """Return every model that can be read, ordered by reference."""
        self._reload()
        models = []
        for digest, name in self._origins().items():
            try:
                models.append(self._load(digest, name))
            except AdvisorError as error:
                log.warning("model_unreadable", problem=str(error))
        return sorted(models, key=lambda model: model.ref)

    def aliases_of(self, model: CatalogModel) -> list[str]:
        """Return the aliases that point at a model, sorted."""
        names = [model.ref, *([model.name] if self._names().get(model.name) == model.digest else [])]
        return sorted(alias for alias, target in self._aliases().items() if target in names)

    def keep(self, model: CatalogModel) -> None:
        """Copy a model into the data folder, where no upgrade of mlrs can lose it.

        Its name stays where it points: after an upgrade, new runs get the new model of that name.

        Raises:
            AdvisorError: its file is damaged or gone, or the data folder cannot be written.
        """
        if not self._path(model.digest).exists():
            _write_atomically(self._path(model.digest), self._read(model.digest, model.name))
            index = self._index
            self._write_index(replace(index, origins={**index.origins, model.digest: model.name}))

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

    def add(self, model: Model, name: str, *, replace: bool = False) -> CatalogModel:
        """Import a model under a name.

        Raises:
            AdvisorError: the name is another model's and `replace` is not set, or the data folder
                cannot be written.
        """
        name = model_name(name)
        data = dump_model(model)
        digest = digest_of(data)
        self._reload()
        if name in self._aliases():
            raise invalid_field("name", f"{name!r} is an alias, which points at a model; choose another name")
        taken = self._names().get(name)
        if taken not in (None, digest) and not replace:
            raise AdvisorError(
                Reason.RUN_EXISTS,
                f"name: {name!r} is the model {name}@{str(taken)[:SHORT_DIGEST]}; choose another name, "
                "or pass --replace (runs keep the model they began with)",
                field="name",
            )
        _write_atomically(self._path(digest), data)
        index = self._index
        self._write_index(
            _Index({**index.names, name: digest}, index.aliases, {**index.origins, digest: name})
        )
        return self._load(digest, name)

    def _names(self) -> dict[str, str]:
        return {**{name: digest for digest, name in self._shipped.items()}, **self._index.names}

    def _origins(self) -> dict[str, str]:
        return {**self._shipped, **self._index.origins}

    def _aliases(self) -> dict[str, str]:
        default = {DEFAULT_ALIAS: self._default or SHIPPED_DEFAULT}
        return {**default, **self._index.aliases}

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.safetensors"

    def _load(self, digest: str, name: str) -> CatalogModel:
        if digest not in self._loaded:
            data = self._read(digest, name)
            with _readable(digest, name):
                model = parse_model(data)
            self._loaded[digest] = CatalogModel(name, digest, model, model.policy(), len(data))
        loaded = self._loaded[digest]
        return loaded if loaded.name == name else replace(loaded, name=name)

    def _read(self, digest: str, name: str) -> bytes:
        """Return a model's file, checked against its digest."""
        with _readable(digest, name):
            if digest in self._shipped and not self._path(digest).exists():
                data = (resources.files("mlrs_core") / "models" / f"{name}.safetensors").read_bytes()
            else:
                data = self._path(digest).read_bytes()
            if digest_of(data) != digest:
                raise ModelFileError("its content does not match its digest")
        return data

    def _reload(self) -> None:
        """Read the index again if it changed."""
        path = self._index_file
        try:
            status = path.stat()
            stamp = status.st_mtime_ns, status.st_ino  # the clock of a file system is coarse
            if stamp == self._stamp:
                return
            fields: Any = json.loads(path.read_text(encoding="utf-8"))
            columns = (fields["names"], fields["aliases"], fields["origins"])
            self._index, self._stamp = _Index(*map(_strings, columns)), stamp
            self._found.clear()
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AdvisorError(
                Reason.MODEL_INVALID, f"the index of models {path} cannot be read: {error!r}; restore it"
            ) from error

    def _write_index(self, index: _Index) -> None:
        text = json.dumps(vars(index), indent=2, sort_keys=True)
        _write_atomically(self._index_file, text.encode())
        self._reload()


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


def _strings(fields: Any) -> dict[str, str]:
    """Return a mapping of strings, checked."""
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise TypeError(f"expected names, found {fields!r:.100}")
    return dict(fields)


def model_name(name: str) -> str:
    """Return a model's name, checked.

    Raises:
        AdvisorError: it is malformed.
    """
    if not NAME.fullmatch(name):
        raise invalid_field(
            "name", f"must be 1 to 64 of a-z, 0-9 and ._-, beginning with a letter or digit, is {name!r}"
        )
    return name


def _shipped_digests() -> dict[str, str]:
    """Return the names of the models in the package, by digest."""
    folder = resources.files("mlrs_core") / "models"
    return {
        digest_of(entry.read_bytes()): entry.name.removesuffix(".safetensors")
        for entry in folder.iterdir()
        if entry.name.endswith(".safetensors")
    }


def _write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all.

    Raises:
        AdvisorError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise AdvisorError(
            Reason.STORE,
            f"the folder of models {path.parent} cannot be written: {error.strerror or error}; "
            "free its disk, or let the daemon write there",
        ) from error
