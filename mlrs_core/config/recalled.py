"""What the memory of a task has decided for a run."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from numbers import Real

from mlrs_core.config.fields import OptionalFields
from mlrs_core.config.ranges import check_type
from mlrs_core.errors import InvalidFieldError


class Measure(enum.IntEnum):
    """What says how well a run ended. The numbers are those of the contract."""

    UNSPECIFIED = 0
    METRIC = 1
    """The caller's own."""
    VALIDATION_LOSS = 2
    """The newest validation loss."""
    TRAINING_LOSS = 3
    """The mean training loss of the last twentieth."""


@dataclass(frozen=True, kw_only=True)
class Recalled(OptionalFields):
    """What the memory of a task has decided for a run, and what it expects of it.

    What was decided is in the run's config: its schedule with a base LR, or an offset of its learning rates.

    Raises:
        InvalidFieldError: a value is of a wrong type.
    """

    why: str
    """Why, in a sentence."""
    decided: bool = False
    """Whether it decided anything."""
    measure: Measure = Measure.UNSPECIFIED
    """What `expected_low` and `expected_high` are of; unspecified: nothing can be expected."""
    expected_low: float | None = None
    """The run is expected to end at this or above; `None`: there is no such bound."""
    expected_high: float | None = None
    """The run is expected to end at this or below; `None`: there is no such bound."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_type("why", self.why, str, "a sentence")
        if type(self.decided) is not bool:
            raise InvalidFieldError("decided", f"must be true or false, is {self.decided!r:.100}")
        check_type("measure", self.measure, Measure, "a Measure")
        check_type("expected_low", self.expected_low, Real, "a number")
        check_type("expected_high", self.expected_high, Real, "a number")
