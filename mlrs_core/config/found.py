"""What a search before a run's first step has found."""

from __future__ import annotations

from dataclasses import dataclass

from mlrs_core.config.fields import OptionalFields
from mlrs_core.config.ranges import check_real, check_whole


@dataclass(frozen=True, kw_only=True)
class FoundRate(OptionalFields):
    """The learning rate that a search found, and what the search took.

    Raises:
        InvalidFieldError: a value is out of range.
    """

    learning_rate: float
    """The learning rate to begin with; finite and > 0."""
    octaves: float
    """How far from the best one it may be: a standard deviation, in octaves (factors of two); >= 0."""
    steps: int
    """The updates that all trials made together."""
    charged: bool = False
    """Whether these are part of the run's horizon."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_real("learning_rate", self.learning_rate, above=0.0)
        check_real("octaves", self.octaves, least=0.0)
        check_whole("steps", self.steps, low=0, high=2**53)
