"""How the ranks of a distributed job share a run."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Self

from mlrs_core.config.fields import OptionalFields
from mlrs_core.config.ranges import check_real
from mlrs_core.errors import InvalidFieldError

MAX_WORLD_SIZE = 65_536
"""The most ranks of a run."""


class RankReduction(enum.IntEnum):
    """How the losses of the ranks become one. The numbers are those of the contract."""

    MEAN = 1
    """Weighted by sample counts."""
    MEDIAN = 2
    """Each rank counts once."""


@dataclass(frozen=True, kw_only=True)
class RanksConfig(OptionalFields):
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

    def resolved(self) -> Self:
        """Return this config with defaults for what it lacks; no timeout is none."""
        return self.completed_by(DEFAULT_RANKS)


DEFAULT_RANKS = RanksConfig(reduction=RankReduction.MEAN, quorum=0.5)
"""What a run with ranks has that says nothing."""
