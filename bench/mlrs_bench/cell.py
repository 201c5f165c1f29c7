"""A cell: the result of one training, and the key that says which one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

Purpose = Literal["tune", "eval"]
"""Whether a training chooses a base LR, or is what the table shows."""
Points = tuple[tuple[int, float], ...]
"""A curve: (step, value)."""


@dataclass(frozen=True, kw_only=True)
class CellKey:
    """Which training a cell is of."""

    task: str
    """The task's name."""
    optimizer: str
    """The optimizer's name, `sgd` (with momentum 0.9) or `adamw`."""
    method: str
    """The name of what sets the LR."""
    base_lr: float | None = None
    """The base LR that the method was given; `None`: it takes none."""
    start: float = 1.0
    """The initial LR that the method was given, over the default one; 1: it was given none."""
    seed: int
    """Draws the first weights and the batches."""
    purpose: Purpose = "eval"
    """What the training is for."""

    @property
    def row(self) -> tuple[str, str]:
        """Task and optimizer: within a row and a seed, trainings differ in nothing but the LR."""
        return self.task, self.optimizer


@dataclass(frozen=True, kw_only=True)
class Cell(CellKey):
    """The result of one training, measured after its last step."""

    horizon: int
    """Its steps."""
    test_loss: float
    """Mean loss on the test examples; at most four times `initial_test_loss`, which also replaces a loss
    that is not finite."""
    raw_test_loss: float | None = None
    """The test loss as measured, without the cap; `None`: it is not finite."""
    test_accuracy: float | None
    """The share of test examples that are classified right; `None` where there are no classes."""
    valid_loss: float
    """Mean loss on the validation examples, capped by four times what it was before training."""
    diverged: bool
    """Whether a training loss was not finite, or the test loss is not or is above three times what it
    was before training."""
    initial_test_loss: float
    """Mean loss on the test examples before training."""
    train_curve: Points
    """At most 40 points: a step, and the mean training loss since the last point."""
    lr_curve: Points
    """At most 40 points: a step and its LR."""
    held: int
    """How many advices were held, as the loss was not finite."""
    seconds: float
    """What the training took; measuring it on test examples not included."""
    identity: str
    """What set the LR, exactly: a model's digest, or a package's version."""

    @property
    def key(self) -> CellKey:
        """Which training it is of."""
        return CellKey(**{field.name: getattr(self, field.name) for field in dataclasses.fields(CellKey)})

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the cell of these JSON values.

        Raises:
            TypeError: fields are missing or unknown.
        """
        curves = {
            name: tuple((int(step), float(value)) for step, value in values[name])
            for name in ("train_curve", "lr_curve")
            if name in values
        }
        return cls(**{**values, **curves})
