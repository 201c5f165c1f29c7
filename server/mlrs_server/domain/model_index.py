"""Names and aliases of models: whose each is, and what a reference means.

Everything here is in memory and immutable: `store/naming.py` keeps an index in the store. Keys are full names
(`names.py`), so those of the default tenant are bare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlrs_server.domain.aliases import AliasChange, Changes, changed
from mlrs_server.tenancy import bare, full_name, tenant_of

MIN_DIGEST = 8
"""The fewest digits that a reference may give."""


@dataclass(frozen=True)
class Index:
    """Names and aliases of all tenants."""

    revision: int = 0
    """Counts the changes of the index in its store."""
    models: Mapping[tuple[str, str], bool] = field(default_factory=dict)
    """Every model that a name means or once meant, by name and digest; true where the name means it now."""
    changes: Mapping[str, Changes] = field(default_factory=dict)
    """What each alias has pointed at, by its name; the last change says where it points."""

    def of(self, tenant: str) -> Space:
        """Return what is a tenant's own."""
        names, known = dict[str, str](), dict[str, list[str]]()
        for (full, digest), is_current in self.models.items():
            if tenant_of(full) == tenant:
                known.setdefault(bare(full), []).append(digest)
                if is_current:
                    names[bare(full)] = digest
        changes = {bare(full): made for full, made in self.changes.items() if tenant_of(full) == tenant}
        return Space(names, known, changes)

    def with_model(self, tenant: str, name: str, digest: str) -> Index:
        """Return the index with a tenant's name that means a model from now on."""
        full = full_name(tenant, name)
        models = {key: now and key[0] != full for key, now in self.models.items()}
        return replace(self, models={**models, (full, digest): True})

    def with_version(self, tenant: str, name: str, digest: str) -> Index:
        """Return the index with a model that a tenant finds by `name@digest`; the name means what it did."""
        key = full_name(tenant, name), digest
        return self if key in self.models else replace(self, models={**self.models, key: False})

    def with_alias(self, tenant: str, alias: str, change: AliasChange, had: str | None) -> Index:
        """Return the index with a tenant's alias that is pointed somewhere; where it points is no change.

        Args:
            tenant: whose alias it is.
            alias: the tenant's word.
            change: what happens.
            had: what the tenant means by it until now, if anything.
        """
        full = full_name(tenant, alias)
        changes = self.changes.get(full, ())
        if changes and changes[-1].target == change.target and change.cause != "rollback":
            return self
        if not changes and had not in (None, change.target):
            changes = (AliasChange(str(had), "set", None),)
        return replace(self, changes={**self.changes, full: changed(changes, change)})


@dataclass(frozen=True)
class Space:
    """Names and aliases of one tenant, as it writes them."""

    names: Mapping[str, str]
    """The digest that each name means."""
    known: Mapping[str, Sequence[str]]
    """The digests of all models that each name means or once meant."""
    changes: Mapping[str, Changes]
    """What each alias has pointed at."""

    def target(self, alias: str) -> str | None:
        """Return what an alias points at, a name or a reference."""
        return self.changes[alias][-1].target if alias in self.changes else None

    def digest_of(self, name: str, digits: str) -> str | None:
        """Return the digest that a name means, or the one known by it that begins with some digits."""
        if not digits:
            return self.names.get(name)
        matching = {digest for digest in self.known.get(name, ()) if digest.startswith(digits)}
        return matching.pop() if len(digits) >= MIN_DIGEST and len(matching) == 1 else None


def resolved(wanted: str, spaces: Sequence[Space]) -> tuple[str, str] | None:
    """Return the digest and the name of what a reference means, in the first space where it means something.

    An alias may point at what is in its own space, and in those after it.
    """
    for place, space in enumerate(spaces):
        target = space.target(wanted)
        name, _, digits = (wanted if target is None else target).partition("@")
        for inner in [space] if target is None else spaces[place:]:
            if (digest := inner.digest_of(name, digits)) is not None:
                return digest, name
    return None
