"""What names and aliases of models mean to whom, and how that changes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mlrs_server.aliases import AliasChange, Cause, Changes, target_before
from mlrs_server.errors import AdvisorError, Reason, invalid_field
from mlrs_server.files import changing
from mlrs_server.model_index import Index, IndexFile, Space

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""What a model's name or an alias looks like."""
DEFAULT_ALIAS = "default"
"""The alias of the model that a run gets when it names none."""
SHIPPED_DEFAULT = "mlr-snet"
"""Where the alias points until someone says otherwise."""


class ModelNames:
    """The names and aliases in a folder, and those of the models that are shipped. Used from one thread."""

    def __init__(self, folder: Path, shipped: Mapping[str, str]) -> None:
        """Read the index of a folder, which need not exist; `shipped` are names by digest.

        Raises:
            AdvisorError: it is damaged.
        """
        self._folder = folder
        self._file = IndexFile(folder / "index.json")
        self._shipped = shipped
        self.default = ""
        """What the daemon says that the default is; "": what the index says."""
        self._file.reload()

    def read(self) -> Index:
        """Return the index, read again if it changed; until then it is the same object."""
        self._file.reload()
        return self._file.index

    def change(self, change: Callable[[Index], Index]) -> None:
        """Change the index, while no other process does.

        Raises:
            AdvisorError: it cannot be written.
        """
        with changing(self._folder, what="models"):
            self._file.write(change(self.read()))
        self.read()

    def spaces(self, tenant: str) -> list[Space]:
        """Return what a tenant's references can mean: what is its own, then what is shared."""
        index = self.read()
        kept = index.of("")
        default = {DEFAULT_ALIAS: self.default} if self.default else {}
        changes = {alias: made for alias, made in kept.changes.items() if alias not in default}
        shared = Space(
            {**{name: digest for digest, name in self._shipped.items()}, **kept.names},
            {DEFAULT_ALIAS: SHIPPED_DEFAULT, **kept.aliases, **default},
            {**self._shipped, **kept.origins},
            changes,
        )
        return [index.of(tenant), shared] if tenant else [shared]

    def check_name(self, name: str, tenant: str = "") -> None:
        """Check the name that a model is to be imported under.

        Raises:
            AdvisorError: it is malformed, or an alias.
        """
        model_name(name)
        if name == DEFAULT_ALIAS or name in self.spaces(tenant)[0].aliases:
            raise invalid_field("name", f"{name!r} is an alias, which points at a model; choose another name")

    def check_alias(self, alias: str, tenant: str = "") -> None:
        """Check that a tenant may point an alias somewhere.

        Raises:
            AdvisorError: it is malformed, or a model's name, or the daemon's own.
        """
        model_name(alias, "alias")
        if alias == DEFAULT_ALIAS and self.default and not tenant:
            raise invalid_field("alias", "the default model is what `mlrs serve --model` says on this daemon")
        if alias in self.spaces(tenant)[0].names:
            raise invalid_field("alias", f"{alias!r} is a model's name; choose another alias")

    def pointed(self, index: Index, tenant: str, alias: str, target: str, cause: Cause) -> Index:
        """Return an index with an alias of a tenant that is pointed somewhere.

        Raises:
            AdvisorError: as `check_alias`.
        """
        self.check_alias(alias, tenant)
        meanings = (space.aliases.get(alias) for space in self.spaces(tenant))
        had = next((meaning for meaning in meanings if meaning is not None), None)
        return index.with_alias(tenant, alias, AliasChange(target, cause, time.time()), had)

    def target_before(self, alias: str, tenant: str) -> str:
        """Return what a tenant's alias goes back to.

        Raises:
            AdvisorError: there is no such alias, or it has nothing to go back to.
        """
        self._meaning(alias, tenant)
        target = target_before(self.spaces(tenant)[0].changes.get(alias, ()))
        if target is None:
            raise AdvisorError(
                Reason.NOTHING_TO_DO,
                f"alias: {alias!r} has pointed nowhere else, as far as is kept; point it somewhere with "
                "`mlrs models alias`",
                field="alias",
            )
        return target

    def changes_of(self, alias: str, tenant: str) -> Changes:
        """Return what a tenant's alias has pointed at, or one that is shared with it, the oldest first.

        Raises:
            AdvisorError: there is no such alias.
        """
        space = self._meaning(alias, tenant)
        return space.changes.get(alias, (AliasChange(space.aliases[alias], "set", None),))

    def _meaning(self, alias: str, tenant: str) -> Space:
        """Return the space in which a tenant's alias is one, the first.

        Raises:
            AdvisorError: there is none.
        """
        spaces = self.spaces(tenant)
        for space in spaces:
            if alias in space.aliases:
                return space
        known = ", ".join(sorted({known for space in spaces for known in space.aliases}))
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
