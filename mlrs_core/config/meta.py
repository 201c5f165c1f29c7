"""The config of meta mode: how the network of a run is adapted during the run."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Self

from mlrs_core.config.fields import OptionalFields
from mlrs_core.config.ranges import check_real, check_whole
from mlrs_core.errors import InvalidFieldError


class AdaptScope(enum.IntEnum):
    """Whose network a run's updates adapt. The numbers are those of the contract."""

    RUN = 1
    """The run's own copy."""
    MODEL = 2
    """The run's own copy, whose adapted weights also count when a new version of the model is made."""


class MetaOrder(enum.IntEnum):
    """When in a step its update is made. The numbers are those of the contract."""

    BEFORE_STEP = 1
    """The paper's: a virtual step, the update, the real step at the new learning rate."""
    AFTER_STEP = 2
    """After the real step; the update changes the advice from the next step on."""


@dataclass(frozen=True, kw_only=True)
class MetaConfig(OptionalFields):
    """How a run's network is adapted; `None` means not given.

    Raises:
        InvalidFieldError: a value is out of range.
    """

    scope: AdaptScope | None = None
    """Whose network is adapted. `None`: the run's own."""
    order: MetaOrder | None = None
    """When in a step the update is made. `None`: `BEFORE_STEP`, as in the paper."""
    every: int | None = None
    """T_val: steps from one update to the next; at least 1. `None`: 5 (docs/quality/meta.md)."""
    learning_rate: float | None = None
    """The learning rate of Adam, (0, 1]. `None`: 1e-3 (Shu et al., section 5)."""
    weight_decay: float | None = None
    """The weight decay of Adam, added to the gradient; [0, 1]. `None`: 1e-4 (Shu et al., section 5)."""
    max_change: float | None = None
    """The furthest that an update may move the logarithm of the learning rate, (0, 10]. `None`: 0.1."""
    clip: float | None = None
    """Alignments are clipped to this many times their typical size, [1, 1e6]. `None`: 10."""
    blow_up: float | None = None
    """A blow-up is a loss this many typical deviations too high, [1, 1e6]. `None`: 8."""

    def __post_init__(self) -> None:
        """Check every field."""
        for name, kind in (("scope", AdaptScope), ("order", MetaOrder)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise InvalidFieldError(name, f"must be of {kind.__name__}, is {value!r:.100}")
        check_whole("every", self.every, low=1, high=2**53, unit="steps")
        check_real("learning_rate", self.learning_rate, above=0.0, most=1.0)
        check_real("weight_decay", self.weight_decay, least=0.0, most=1.0)
        check_real("max_change", self.max_change, above=0.0, most=10.0)
        check_real("clip", self.clip, least=1.0, most=1e6)
        check_real("blow_up", self.blow_up, least=1.0, most=1e6)

    def rules(self) -> Self:
        """Return this config without the fields that updates do not depend on: `every` and `scope`."""
        return replace(self, every=None, scope=None)

    def resolved(self) -> Self:
        """Return this config with defaults for what it lacks."""
        return self.completed_by(DEFAULT_META)


DEFAULT_META = MetaConfig(
    scope=AdaptScope.RUN,
    order=MetaOrder.BEFORE_STEP,
    every=5,
    learning_rate=1e-3,
    weight_decay=1e-4,
    max_change=0.1,
    clip=10.0,
    blow_up=8.0,
)
"""The settings of a run in meta mode that gives none."""
