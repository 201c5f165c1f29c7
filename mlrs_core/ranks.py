"""How the ranks of a distributed job share a run."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields, replace
from typing import Self

from mlrs_core.errors import InvalidFieldError
from mlrs_core.ranges import check_real

MAX_WORLD_SIZE = 65_536
"""The most ranks of a run."""


class RankReduction(enum.IntEnum):
    """How the losses of the ranks become one. The numbers are those of the contract."""

    MEAN = 1
    """Weighted by sample counts."""
    MEDIAN = 2
    """Each rank counts once."""


@dataclass(frozen=True, kw_only=True)
class RanksConfig:
    """How ranks share a run; `None` means not given.

    Raises:
        InvalidFieldError: a value is out of range.
    """

    reduction: RankReduction | None = None
    """How losses become one. `None`: their mean."""
    straggler_timeout_s: float | None = None
    """How long after the first loss of a step a quorum is enough, (0, 86400] seconds. `None`: never."""
    quorum: float | None = None
    """The share of the ranks that is enough then, (0, 1]. `None`: 0.5."""

    def __post_init__(self) -> None:
        """Check every field."""
        if self.reduction is not None and not isinstance(self.reduction, RankReduction):
            raise InvalidFieldError("reduction", f"must be of RankReduction, is {self.reduction!r:.100}")
        check_real("straggler_timeout_s", self.straggler_timeout_s, above=0.0, most=86_400.0)
        check_real("quorum", self.quorum, above=0.0, most=1.0)

    def given(self) -> list[str]:
        """Return the names of the fields that have a value."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]

    def completed_by(self, other: RanksConfig) -> Self:
        """Return this config with the fields that it lacks taken from another."""
        has = self.given()
        return replace(self, **{name: getattr(other, name) for name in other.given() if name not in has})

    def resolved(self) -> Self:
        """Return this config with defaults for what it lacks; no timeout is none."""
        return self.completed_by(DEFAULT_RANKS)


DEFAULT_RANKS = RanksConfig(reduction=RankReduction.MEAN, quorum=0.5)
"""What a run with ranks has that says nothing."""
