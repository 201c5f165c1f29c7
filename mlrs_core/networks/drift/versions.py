"""The versions of the drift network's feature set. A stored model names its own, which serves it for ever.

A version is what the network sees, what it remembers to see it, and what its head's numbers mean: counts
and formulas, in code that never changes once a model of the version may be stored. The numbers in these
formulas that one might want to move are its constants, which each model holds.

To add version 2, write its constants, its kernel and its learner beside those of version 1, from which they
may take what is the same. Enter it in `FEATURE_SETS`, and its kernel and learner in
`mlrs_core/networks/serving.py`. Version 1 stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mlrs_core.errors import InvalidFieldError
from mlrs_core.networks.drift.constants import (
    EXTRAS,
    LOSS_FEATURES,
    OWN_FEATURES,
    PROGRESS_FEATURES,
    DriftConstants,
)


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """One version."""

    constants: type[Any]
    """The numbers that a model of it holds: a frozen dataclass that checks them."""
    features: tuple[int, int, int]
    """Inputs of the cell that come from the losses, from the position in the horizon, and from the rest."""
    extras: int
    """Entries of a run's state besides the cell's."""

    def constants_from(self, stored: Mapping[str, Any]) -> Any:
        """Return constants from a model's file, which names every one: defaults in code may not fill in.

        Raises:
            InvalidFieldError: one is missing, unknown or out of range.
        """
        known = {each.name for each in fields(self.constants)}
        missing, extra = sorted(known - stored.keys()), sorted(stored.keys() - known)
        if missing or extra:
            raise InvalidFieldError("constants", f"missing: {missing or 'none'}; unknown: {extra or 'none'}")
        return self.constants(**stored)


FEATURE_SETS: dict[int, FeatureSet] = {
    1: FeatureSet(
        constants=DriftConstants,
        features=(LOSS_FEATURES, PROGRESS_FEATURES, OWN_FEATURES),
        extras=EXTRAS,
    ),
}
"""The versions that this daemon serves, by number."""


def feature_set(version: object) -> FeatureSet:
    """Return a version.

    Raises:
        InvalidFieldError: it is unknown, as one that a newer mlrs has added.
    """
    if type(version) is not int or version not in FEATURE_SETS:
        known = ", ".join(map(str, sorted(FEATURE_SETS)))
        raise InvalidFieldError(
            "features", f"version {version!r} is unknown; this version of mlrs knows: {known}"
        )
    return FEATURE_SETS[version]
