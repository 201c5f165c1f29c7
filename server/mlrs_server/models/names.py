"""Resolution of model names and aliases for tenants, and the allowed changes of them. All in memory."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlrs_server.domain.aliases import AliasChange, Cause, Changes, target_before
from mlrs_server.domain.model_index import Index, Space, resolved
from mlrs_server.errors import AdvisorError, Reason, invalid_field

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""The pattern of models' names and of aliases."""
DEFAULT_ALIAS = "default"
"""The alias of the model that a run gets when it names none."""
SHIPPED_DEFAULT = "mlr-snet"
"""The model that the default alias points at until it is changed."""


@dataclass(frozen=True)
class ModelNames:
    """The names and aliases of a store at one moment, and those of the models that are shipped."""

    shipped: Mapping[str, str]
    """The digests of the models in the package, by name."""
    default: str = ""
    """The default model set for this daemon; "" is the default of the index."""
    index: Index = field(default_factory=Index)
    """The names and aliases in the store."""
    _spaces: dict[str, list[Space]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """A cache of `spaces`, so that opening a run need not scan the names of all tenants."""

    def spaces(self, tenant: str) -> list[Space]:
        """Return the namespaces of a tenant's references: its own, then the shared one."""
        if (spaces := self._spaces.get(tenant)) is None:
            own = [self.index.of(tenant), *self.spaces("")] if tenant else [self._shared()]
            spaces = self._spaces[tenant] = own
        return spaces

    def _shared(self) -> Space:
        stored = self.index.of("")
        known = {name: [digest, *stored.known.get(name, ())] for name, digest in self.shipped.items()}
        changes = {DEFAULT_ALIAS: _initial(SHIPPED_DEFAULT), **stored.changes}
        if self.default:
            changes[DEFAULT_ALIAS] = _initial(self.default)
        return Space({**self.shipped, **stored.names}, {**stored.known, **known}, changes)

    def meaning(self, reference: str, tenant: str) -> tuple[str, str]:
        """Return the digest and the name of the model that a tenant's reference means; "" is the default.

        Raises:
            AdvisorError: there is no such model.
        """
        wanted = reference or DEFAULT_ALIAS
        spaces = self.spaces(tenant)
        if (meant := resolved(wanted, spaces)) is not None:
            return meant
        known = ", ".join(sorted({name for space in spaces for name in {*space.names, *space.changes}}))
        raise AdvisorError(
            Reason.MODEL_NOT_FOUND,
            f"model: there is no model {wanted[:100]!r}; this daemon knows: {known}; "
            "`mlrs models import` adds one",
            field="model",
        )

    def known_to(self, tenant: str) -> set[tuple[str, str]]:
        """Return the name and the digest of every model of a tenant, or shared with it."""
        return {
            (name, digest)
            for space in self.spaces(tenant)
            for name, digests in space.known.items()
            for digest in digests
        }

    def aliases_of(self, name: str, digest: str, tenant: str) -> list[str]:
        """Return the aliases by which a tenant finds a model, sorted."""
        spaces = self.spaces(tenant)
        aliases = sorted({alias for space in spaces for alias in space.changes})
        return [alias for alias in aliases if resolved(alias, spaces) == (digest, name)]

    def check_name(self, name: str, tenant: str) -> None:
        """Check the name that a model is to be imported under.

        Raises:
            AdvisorError: it is malformed, or an alias.
        """
        model_name(name)
        if name == DEFAULT_ALIAS or name in self.spaces(tenant)[0].changes:
            raise invalid_field("name", f"{name!r} is an alias, which points at a model; choose another name")

    def check_alias(self, alias: str, tenant: str) -> None:
        """Check that a tenant may point an alias somewhere.

        Raises:
            AdvisorError: it is malformed, or a model's name, or the daemon's own.
        """
        model_name(alias, "alias")
        if alias == DEFAULT_ALIAS and self.default and not tenant:
            raise invalid_field("alias", "the default model is what `mlrs serve --model` says on this daemon")
        if alias in self.spaces(tenant)[0].names:
            raise invalid_field("alias", f"{alias!r} is a model's name; choose another alias")

    def pointed(self, tenant: str, alias: str, target: str, cause: Cause) -> Index:
        """Return the index with an alias of a tenant pointed at a target.

        Raises:
            AdvisorError: as `check_alias`.
        """
        self.check_alias(alias, tenant)
        targets = (space.target(alias) for space in self.spaces(tenant))
        had = next((target for target in targets if target is not None), None)
        return self.index.with_alias(tenant, alias, AliasChange(target, cause, time.time()), had)

    def target_before(self, alias: str, tenant: str) -> str:
        """Return the target to which a tenant's alias would be rolled back.

        Raises:
            AdvisorError: as `check_alias`; or there is no such alias, or it has no earlier target.
        """
        self.check_alias(alias, tenant)
        self.changes_of(alias, tenant)
        target = target_before(self.spaces(tenant)[0].changes.get(alias, ()))
        if target is None:
            raise AdvisorError(
                Reason.NOTHING_TO_DO,
                f"alias: {alias!r} has no earlier target on record; point it at a model with "
                "`mlrs models alias`",
                field="alias",
            )
        return target

    def changes_of(self, alias: str, tenant: str) -> Changes:
        """Return the targets of an alias of a tenant, or shared with it, the oldest first.

        Raises:
            AdvisorError: there is no such alias.
        """
        spaces = self.spaces(tenant)
        for space in spaces:
            if alias in space.changes:
                return space.changes[alias]
        known = ", ".join(sorted({known for space in spaces for known in space.changes}))
        raise AdvisorError(
            Reason.MODEL_NOT_FOUND,
            f"alias: there is no alias {alias[:100]!r}; this daemon knows: {known}",
            field="alias",
        )


def model_name(name: str, field: str = "name") -> str:
    """Return a model's name, or an alias, checked.

    Raises:
        AdvisorError: it is malformed.
    """
    if not NAME.fullmatch(name):
        raise invalid_field(
            field, f"must be 1 to 64 of a-z, 0-9 and ._-, beginning with a letter or digit, is {name!r}"
        )
    return name


def _initial(target: str) -> Changes:
    return (AliasChange(target, "set", None),)
