"""Names and aliases of models: whose each is, and the file that they are kept in.

Keys of the file are full names (`names.py`): what there was before there were tenants is the default one's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from mlrs_server.aliases import AliasChange, Changes, changed, changes_of
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.files import write_atomically
from mlrs_server.names import bare, full_name, tenant_of

MIN_DIGEST = 8
"""The fewest digits that a reference may give."""

Strings = Mapping[str, str]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Index:
    """Names and aliases of all tenants."""

    names: dict[str, str] = field(default_factory=dict)
    """Digest by name."""
    aliases: dict[str, str] = field(default_factory=dict)
    """What each alias points at, in its tenant's words: a name, or a reference."""
    origins: dict[str, str] = field(default_factory=dict)
    """The name each digest was imported under."""
    changes: dict[str, Changes] = field(default_factory=dict)
    """What each alias has pointed at."""

    def of(self, tenant: str) -> Space:
        """Return what is a tenant's own."""
        return Space(
            _own(self.names, tenant),
            _own(self.aliases, tenant),
            _own(self.origins, tenant),
            _own(self.changes, tenant),
        )

    def with_model(self, tenant: str, name: str, digest: str) -> Index:
        """Return the index with a model of a tenant under a name."""
        names = {**self.names, full_name(tenant, name): digest}
        return replace(self.with_origin(full_name(tenant, digest), name), names=names)

    def with_alias(self, tenant: str, alias: str, change: AliasChange, had: str | None = None) -> Index:
        """Return the index with an alias of a tenant that is pointed somewhere.

        If that is where it points already, nothing changes.

        Args:
            tenant: whose.
            alias: the tenant's word.
            change: what happens.
            had: what the tenant means by it until now, if anything.
        """
        full = full_name(tenant, alias)
        if self.aliases.get(full) == change.target and change.cause != "rollback":
            return self
        changes = self.changes.get(full, ())
        if not changes and had not in (None, change.target):
            changes = (AliasChange(str(had), "set", None),)
        aliases = {**self.aliases, full: change.target}
        return replace(self, aliases=aliases, changes={**self.changes, full: changed(changes, change)})

    def with_origin(self, digest: str, name: str) -> Index:
        """Return the index with a model that is known by its reference: by a digest's full name."""
        return replace(self, origins={**self.origins, digest: name})


@dataclass(frozen=True)
class Space:
    """Names and aliases of one tenant, as it writes them: the columns of `Index`."""

    names: Strings
    aliases: Strings
    origins: Strings
    changes: Mapping[str, Changes]

    def digest_of(self, name: str, digits: str) -> str | None:
        """Return the digest of the model of a name, or of the one known by it whose digest begins so."""
        named = self.names.get(name)
        if not digits:
            return named
        known_as = {digest for digest, origin in self.origins.items() if origin == name} | {named}
        matching = {digest for digest in known_as if digest is not None and digest.startswith(digits)}
        return matching.pop() if len(digits) >= MIN_DIGEST and len(matching) == 1 else None


def resolved(wanted: str, spaces: Sequence[Space]) -> tuple[str, str] | None:
    """Return the digest and the name of what a reference means, in the first space where it means something.

    An alias may point at what is in its own space, and in those after it.
    """
    for place, space in enumerate(spaces):
        name, _, digits = space.aliases.get(wanted, wanted).partition("@")
        for inner in spaces[place:] if wanted in space.aliases else [space]:
            if (digest := inner.digest_of(name, digits)) is not None:
                return digest, name
    return None


class IndexFile:
    """The index as a file, read again when it changed."""

    def __init__(self, path: Path) -> None:
        """Use the file at a path; it need not exist."""
        self.path = path
        self.index = Index()
        self._stamp = (-1, -1)

    def reload(self) -> bool:
        """Read the file again if it changed; return whether it did.

        Raises:
            AdvisorError: it is damaged.
        """
        try:
            status = self.path.stat()
            stamp = status.st_mtime_ns, status.st_ino  # the clock of a file system is coarse
            if stamp == self._stamp:
                return False
            self.index, self._stamp = _index_of(json.loads(self.path.read_text(encoding="utf-8"))), stamp
        except FileNotFoundError:
            return False
        except _NewerError as error:
            raise AdvisorError(
                Reason.MODEL_INVALID,
                f"the index of models {self.path} is of a newer version of mlrs ({error}); upgrade mlrs",
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AdvisorError(
                Reason.MODEL_INVALID, f"the index of models {self.path} cannot be read: {error!r}; restore it"
            ) from error
        return True

    def write(self, index: Index) -> None:
        """Replace the file.

        Raises:
            AdvisorError: it cannot be written.
        """
        text = json.dumps(asdict(index), indent=2, sort_keys=True)
        write_atomically(self.path, text.encode(), what="models")


class _NewerError(Exception):
    """A file has what this version does not know."""


def _index_of(columns: Any) -> Index:
    """Return the index in JSON; changes of aliases were not always kept."""
    if not isinstance(columns, dict):
        raise TypeError(f"expected columns, found {columns!r:.100}")
    if unknown := sorted(columns.keys() - {column.name for column in fields(Index)}):
        raise _NewerError(f"it has {', '.join(unknown)[:100]}")
    names, aliases, origins = (_strings(columns[name]) for name in ("names", "aliases", "origins"))
    try:
        return Index(names, aliases, origins, changes_of(columns.get("changes", {})))
    except ValueError as error:
        raise _NewerError(str(error)) from error


def _own(column: Mapping[str, Value], tenant: str) -> dict[str, Value]:
    return {bare(full): value for full, value in column.items() if tenant_of(full) == tenant}


def _strings(fields: Any) -> dict[str, str]:
    """Return a mapping of strings, checked."""
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise TypeError(f"expected names, found {fields!r:.100}")
    return dict(fields)
