"""What the advice of a run depends on, besides its losses and its model's weights."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from numbers import Real
from typing import Any, Self

from mlrs_core.config.fields import OptionalFields
from mlrs_core.config.found import FoundRate
from mlrs_core.config.meta import MetaConfig, MetaOrder
from mlrs_core.config.ranges import check_real, check_type, check_whole
from mlrs_core.config.ranks import RanksConfig
from mlrs_core.config.recalled import Recalled
from mlrs_core.config.schedule import ScheduleSpec
from mlrs_core.errors import InvalidFieldError

MAX_HORIZON = 2**53
"""The largest horizon, in steps: the last integer that a double counts up to without gaps."""


MAX_OFFSET = 20.0
"""The largest offset of a learning rate, in octaves: a factor of a million."""


class Optimizer(enum.IntEnum):
    """The update rule that a learning rate is advised for. The numbers are those of the contract."""

    UNSPECIFIED = 0
    SGD = 1
    MOMENTUM = 2
    NESTEROV = 3
    ADAM = 4
    ADAMW = 5
    OTHER = 6


_PARTS = ("schedule", "meta", "ranks")
"""Fields that have fields of their own."""


@dataclass(frozen=True, kw_only=True)
class RunConfig(OptionalFields):
    """The config of a run; `None` means not given.

    Raises:
        InvalidFieldError: a value is out of range.
    """

    horizon: int | None = None
    """The total number of steps, 1 to 2**53."""
    num_classes: int | None = None
    """The number of classes C of a classification loss, at least 2."""
    scale: float | None = None
    """The scale gamma; finite and > 0. `None`: the model's scale rule."""
    snapshot: int | None = None
    """The snapshot that a run without a horizon stays on. `None`: the middle one."""
    optimizer: Optimizer = Optimizer.UNSPECIFIED
    """The update rule of the training loop."""
    momentum: float | None = None
    """Its momentum (for Adam, beta 1), in [0, 1)."""
    min_lr: float | None = None
    """No advice is below this; finite and >= 0."""
    max_lr: float | None = None
    """No advice is above this; finite, > 0 and >= `min_lr`."""
    initial_lr: float | None = None
    """The learning rate to start from, for models that take one; finite and > 0. `None`: the default one."""
    schedule: ScheduleSpec | None = None
    """The schedule that the run follows in place of a model."""
    meta: MetaConfig | None = None
    """How the network goes on learning. `None`: its weights stay."""
    ranks: RanksConfig | None = None
    """How the ranks of a distributed job share the run. `None`: there is one."""
    batch_size: int | None = None
    """The examples that a step trains on, over all ranks; 1 to 2**53."""
    recalled: Recalled | None = None
    """What the memory of the task has decided; the daemon sets it. `None`: the run takes no part in it."""
    found: FoundRate | None = None
    """What a search before the first step has found; the daemon sets it. `None`: there was none."""
    rescue: bool = False
    """Whether losses are watched for a blow-up and for overfitting (`mlrs_core.rescue`)."""
    lr_offset: float | None = None
    """Octaves: every learning rate is times 2**lr_offset, before its bounds; -20 to 20. `None`: 0."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_whole("horizon", self.horizon, low=1, high=MAX_HORIZON, unit="steps")
        check_whole("num_classes", self.num_classes, low=2, high=2**31 - 1, unit="classes")
        check_whole("snapshot", self.snapshot, low=0, high=2**31 - 1)
        check_real("scale", self.scale, above=0.0)
        check_real("initial_lr", self.initial_lr, above=0.0)
        check_real("min_lr", self.min_lr, least=0.0)
        check_real("max_lr", self.max_lr, above=0.0)
        if not isinstance(self.optimizer, Optimizer):
            raise InvalidFieldError("optimizer", f"must be an Optimizer, is {self.optimizer!r:.100}")
        check_type("schedule", self.schedule, ScheduleSpec, "a ScheduleSpec")
        check_type("meta", self.meta, MetaConfig, "a MetaConfig")
        check_type("ranks", self.ranks, RanksConfig, "a RanksConfig")
        check_type("found", self.found, FoundRate, "a FoundRate")
        check_whole("batch_size", self.batch_size, low=1, high=MAX_HORIZON, unit="examples")
        check_type("recalled", self.recalled, Recalled, "a Recalled")
        if self.meta is not None and self.schedule is not None:
            raise InvalidFieldError("meta", "a schedule has no weights to train; leave one of them out")
        if type(self.rescue) is not bool:
            raise InvalidFieldError("rescue", f"must be true or false, is {self.rescue!r:.100}")
        check_type("lr_offset", self.lr_offset, Real, "a number")
        if self.lr_offset is not None and not abs(self.lr_offset) <= MAX_OFFSET:
            raise InvalidFieldError(
                "lr_offset", f"must be {-MAX_OFFSET:g} to {MAX_OFFSET:g} octaves, is {self.lr_offset}"
            )
        check_type("momentum", self.momentum, Real, "a number")
        if self.momentum is not None and not 0.0 <= self.momentum < 1.0:
            raise InvalidFieldError("momentum", f"must be in [0, 1), is {self.momentum}")
        if self.min_lr is not None and self.max_lr is not None and self.min_lr > self.max_lr:
            raise InvalidFieldError("min_lr", f"{self.min_lr} is above max_lr, {self.max_lr}")

    def resolved(self) -> Self:
        """Return this config with the defaults of its schedule, of meta mode and of ranks.

        Where there are ranks, updates come after the step unless the run says otherwise: the learning
        rate after an update before the step reaches only the rank that made it.
        """
        meta, ranks = self.meta, self.ranks
        if meta is not None and meta.order is None and ranks is not None:
            meta = dataclasses.replace(meta, order=MetaOrder.AFTER_STEP)
        return dataclasses.replace(
            self,
            schedule=self.schedule and self.schedule.resolved(),
            meta=meta and meta.resolved(),
            ranks=ranks and ranks.resolved(),
        )

    def after_search(self) -> Self:
        """Return this config with what a search found in the place of what it replaces.

        The learning rate that was found stands for `initial_lr` and for the base LR of the schedule. The
        horizon ends earlier by the steps of the trials, if these are charged.
        """
        found = self.found
        if found is None:
            return self
        horizon = self.horizon
        if horizon is not None and found.charged:
            horizon = max(horizon - found.steps, 1)
        return dataclasses.replace(
            self,
            horizon=horizon,
            initial_lr=found.learning_rate,
            schedule=self.schedule and dataclasses.replace(self.schedule, base_lr=found.learning_rate),
            found=None,
        )

    def values(self) -> dict[str, Any]:
        """Return the fields that have a value by name, those of its parts as `schedule.<name>` and so on.

        A part that may have no field that was given, `meta` or `ranks`, is there itself, as True.
        """
        values = {name: getattr(self, name) for name in self.given() if name not in _PARTS}
        for name in _PARTS:
            if (part := getattr(self, name)) is not None:
                if name != "schedule":
                    values[name] = True
                values |= {f"{name}.{field}": getattr(part, field) for field in part.given()}
        return values

    def check_complete(self) -> None:
        """Check what only a whole config can be checked for: that its schedule has all it needs.

        Raises:
            InvalidFieldError: a horizon is needed and not given, or too short.
        """
        if self.schedule is None:
            return
        try:
            self.schedule.check_horizon(self.horizon)
        except InvalidFieldError as error:
            if error.field == "horizon":
                raise
            raise error.within("schedule") from error
