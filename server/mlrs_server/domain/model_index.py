"""Names and aliases of models of all tenants, and how references are resolved.

Everything here is in memory and immutable; `storage/naming.py` stores the index. Keys are full names
(`tenancy.py`); those of the default tenant have no prefix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlrs_server.domain.aliases import AliasChange, Changes, changed
from mlrs_server.tenancy import bare, full_name, tenant_of

MIN_DIGEST = 8
"""The shortest digest prefix in a reference, in hexadecimal digits."""


@dataclass(frozen=True)
class Index:
    """Names and aliases of all tenants."""

    revision: int = 0
    """The number of changes of the stored index."""
    models: Mapping[tuple[str, str], bool] = field(default_factory=dict)
    """Every model that a name refers or once referred to, by name and digest; true for the current one."""
    changes: Mapping[str, Changes] = field(default_factory=dict)
    """The changes of each alias, by its full name; the last one has its current target."""

    def of(self, tenant: str) -> Space:
        """Return the names and aliases of a tenant."""
        names, known = dict[str, str](), dict[str, list[str]]()
        for (full, digest), is_current in self.models.items():
            if tenant_of(full) == tenant:
                known.setdefault(bare(full), []).append(digest)
                if is_current:
                    names[bare(full)] = digest
        changes = {bare(full): made for full, made in self.changes.items() if tenant_of(full) == tenant}
        return Space(names, known, changes)

    def with_model(self, tenant: str, name: str, digest: str) -> Index:
        """Return the index with a tenant's name that refers to a model from now on."""
        full = full_name(tenant, name)
        models = {key: now and key[0] != full for key, now in self.models.items()}
        return replace(self, models={**models, (full, digest): True})

    def with_version(self, tenant: str, name: str, digest: str) -> Index:
        """Return the index with a model that a tenant finds by `name@digest`; the name is unchanged."""
        key = full_name(tenant, name), digest
        return self if key in self.models else replace(self, models={**self.models, key: False})

    def with_alias(self, tenant: str, alias: str, change: AliasChange, had: str | None) -> Index:
        """Return the index after a change of an alias; setting the current target again changes nothing.

        Args:
            tenant: the tenant of the alias.
            alias: its name, without the tenant.
            change: the change.
            had: the target that it has for the tenant before the change, if any.
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
    """Names and aliases of one tenant, without its prefix."""

    names: Mapping[str, str]
    """The digest that each name refers to."""
    known: Mapping[str, Sequence[str]]
    """The digests of all models that each name refers or once referred to."""
    changes: Mapping[str, Changes]
    """The changes of each alias."""

    def target(self, alias: str) -> str | None:
        """Return the target of an alias, a name or a reference; `None` if there is no such alias."""
        return self.changes[alias][-1].target if alias in self.changes else None

    def digest_of(self, name: str, digits: str) -> str | None:
        """Return the digest that a name refers to, or the only known one that begins with `digits`."""
        if not digits:
            return self.names.get(name)
        matching = {digest for digest in self.known.get(name, ()) if digest.startswith(digits)}
        return matching.pop() if len(digits) >= MIN_DIGEST and len(matching) == 1 else None


def resolved(wanted: str, spaces: Sequence[Space]) -> tuple[str, str] | None:
    """Return the digest and the name that a reference resolves to, in the first space that has it.

    The target of an alias may be in its own space, or in a later one.
    """
    for index, space in enumerate(spaces):
        target = space.target(wanted)
        name, _, digits = (wanted if target is None else target).partition("@")
        for inner in [space] if target is None else spaces[index:]:
            if (digest := inner.digest_of(name, digits)) is not None:
                return digest, name
    return None
