"""Names and aliases of models: whose each is, and the file that they are kept in.

Keys of the file are full names (`names.py`): what there was before there were tenants is the default one's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.files import write_atomically
from mlrs_server.names import bare, full_name, tenant_of

MIN_DIGEST = 8
"""The fewest digits that a reference may give."""

Strings = Mapping[str, str]


@dataclass(frozen=True)
class Index:
    """Names and aliases of all tenants."""

    names: dict[str, str] = field(default_factory=dict)
    """Digest by name."""
    aliases: dict[str, str] = field(default_factory=dict)
    """What each alias points at, in its tenant's words: a name, or a reference."""
    origins: dict[str, str] = field(default_factory=dict)
    """The name each digest was imported under."""

    def of(self, tenant: str) -> Space:
        """Return what is a tenant's own."""
        return Space(*(_own(column, tenant) for column in (self.names, self.aliases, self.origins)))

    def with_model(self, tenant: str, name: str, digest: str) -> Index:
        """Return the index with a model of a tenant under a name."""
        names = {**self.names, full_name(tenant, name): digest}
        return Index(names, self.aliases, {**self.origins, full_name(tenant, digest): name})

    def with_alias(self, tenant: str, alias: str, target: str) -> Index:
        """Return the index with an alias of a tenant that points somewhere."""
        return Index(self.names, {**self.aliases, full_name(tenant, alias): target}, self.origins)

    def with_origin(self, digest: str, name: str) -> Index:
        """Return the index with a model that is kept for the runs that have it."""
        return Index(self.names, self.aliases, {**self.origins, digest: name})


@dataclass(frozen=True)
class Space:
    """Names and aliases of one tenant, as it writes them: the columns of `Index`."""

    names: Strings
    aliases: Strings
    origins: Strings

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
            fields: Any = json.loads(self.path.read_text(encoding="utf-8"))
            columns = (fields["names"], fields["aliases"], fields["origins"])
            self.index, self._stamp = Index(*map(_strings, columns)), stamp
        except FileNotFoundError:
            return False
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
        text = json.dumps(vars(index), indent=2, sort_keys=True)
        write_atomically(self.path, text.encode(), what="models")


def _own(column: Strings, tenant: str) -> Strings:
    return {bare(full): value for full, value in column.items() if tenant_of(full) == tenant}


def _strings(fields: Any) -> dict[str, str]:
    """Return a mapping of strings, checked."""
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise TypeError(f"expected names, found {fields!r:.100}")
    return dict(fields)
