"""What a training method offers. Methods are chosen by name.

To add one, write a package beside `hypergradient/` with a `settings.py` (its `Settings`, free of
torch) and a `TrainingMethod`, and enter both in `methods.py`: `mlrs train` then has a
command for it, with an option for each field, its docstring as the help. Everything around the
algorithm is shared: see `session.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from mlrs_core.models.model import Model


@dataclass(frozen=True, kw_only=True)
class LogRecord:
    """One line of the log. It holds no time, so that equal trainings write equal logs."""

    task: str
    """The task it is about."""
    step: int
    """Steps made: of the task's base learner, or of the training."""
    epoch: int | None = None
    """The epoch that the step lies in, from 1; `None` where there are none."""
    values: Mapping[str, float | None]
    """What was measured, by name; `None` where there is nothing yet."""


class TrainingMethod(Protocol):
    """A training under way. `advance` until `steps_done` is `steps_total`, then take `model`."""

    @property
    def steps_done(self) -> int:
        """How often it has advanced."""
        ...

    @property
    def steps_total(self) -> int:
        """How often it advances in all; an estimate until the end, where time decides."""
        ...

    def advance(self) -> LogRecord | None:
        """Make one step; return a record when one is due.

        Raises:
            DivergedError: a loss is not finite.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that later steps depend on, as tensors and plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        ...

    def model(self, provenance: Mapping[str, Any]) -> Model:
        """Return the trained model, with what the method adds to its provenance."""
        ...


class Settings(Protocol):
    """The settings of a method: everything that its result depends on. Implementations are frozen."""

    method: ClassVar[str]
    """Its name in commands and provenance."""
    summary: ClassVar[str]
    """What it does, for its command's help."""
    checkpoint_every: ClassVar[int]
    """Steps between checkpoints, unless asked for otherwise."""

    def __init__(self, **fields: Any) -> None:
        """Check every field.

        Raises:
            InvalidFieldError: one is out of range.
        """
        ...

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        ...
