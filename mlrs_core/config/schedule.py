"""Which schedule a run follows: its kind, its numbers, their defaults and ranges."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import Any, Self

from mlrs_core.config.fields import OptionalFields
from mlrs_core.config.ranges import check_real, check_type, check_whole
from mlrs_core.errors import InvalidFieldError

MAX_STEPS = 2**53
"""The largest number of steps: the last integer that a double counts up to without gaps."""
MAX_COUNT = 2**23
"""The largest patience and cooldown: single precision, which states are kept in, counts that far."""
MAX_MILESTONES = 64
"""The most milestones."""
MIN_BASE_LR, MAX_BASE_LR = 1e-30, 1e30
"""The bounds of the base LR: what a schedule makes of it is finite, and above 0 until it ends."""
MAX_STEADY_FACTOR = 0.99999
"""The largest factor of a schedule that watches the loss: its moves are counted in single precision."""


class ScheduleKind(enum.IntEnum):
    """The schedules. The numbers are those of the contract."""

    CONSTANT = 1
    MULTI_STEP = 2
    EXPONENTIAL = 3
    COSINE = 4
    LINEAR = 5
    WSD = 6
    ONE_CYCLE = 7
    SGDR = 8
    PLATEAU = 9
    GREEDY = 10

    @property
    def spelling(self) -> str:
        """The name that users write, such as `multi-step`."""
        return self.name.lower().replace("_", "-")


SHAPES: Mapping[ScheduleKind, Mapping[str, Any]] = {
    ScheduleKind.CONSTANT: {},
    ScheduleKind.MULTI_STEP: {"milestones": None, "factor": 0.1},
    ScheduleKind.EXPONENTIAL: {"factor": None},
    ScheduleKind.COSINE: {"final_lr": 0.0},
    ScheduleKind.LINEAR: {"final_lr": 0.0},
    ScheduleKind.WSD: {"final_lr": 0.0, "cooldown_fraction": 0.2},
    ScheduleKind.ONE_CYCLE: {"peak_fraction": 0.3, "start_division": 25.0, "final_division": 1e4},
    ScheduleKind.SGDR: {"final_lr": 0.0, "period": None, "period_mult": 1},
    ScheduleKind.PLATEAU: {
        "final_lr": 0.0,
        "factor": 0.1,
        "patience": None,
        "threshold": 1e-4,
        "cooldown": 0,
        "smoothing": None,
    },
    ScheduleKind.GREEDY: {
        "final_lr": 1e-3,
        "factor": 0.95,
        "patience": 10,
        "threshold": 1e-6,
        "cooldown": 0,
        "smoothing": 1,
    },
}
"""The shape parameters of each kind with their defaults; `None`: from the run's horizon."""
NEED_HORIZON = frozenset({ScheduleKind.COSINE, ScheduleKind.LINEAR, ScheduleKind.WSD, ScheduleKind.ONE_CYCLE})
"""The kinds that are stretched over the horizon."""
INSTEAD_OF_HORIZON: Mapping[ScheduleKind, str] = {
    ScheduleKind.MULTI_STEP: "milestones",
    ScheduleKind.EXPONENTIAL: "factor",
    ScheduleKind.SGDR: "period",
}
"""The kinds that need the horizon or else a parameter."""


@dataclass(frozen=True)
class ScheduleSpec(OptionalFields):
    """A schedule; `None` means not given.

    `base_lr` and `warmup` are numbers of a run. The others are the shape, which many runs share; each
    belongs to some kinds (`SHAPES`), and giving it to another is an error.

    Raises:
        InvalidFieldError: a value is out of range, or of no meaning to the kind.
    """

    kind: ScheduleKind
    """Which schedule."""
    _: KW_ONLY
    base_lr: float | None = None
    """What the schedule multiplies; 1e-30 to 1e30. `None`: the run's `initial_lr`, else the default one."""
    warmup: int | None = None
    """Steps of linear warmup; >= 0."""
    final_lr: float | None = None
    """Where the LR ends, or its lower bound, as a fraction of the base LR; [0, 1]."""
    milestones: tuple[int, ...] | None = None
    """The steps, counted from the run's start, from which on the LR is multiplied once more; rising."""
    factor: float | None = None
    """What the LR is multiplied by, at a time; (0, 1]."""
    cooldown_fraction: float | None = None
    """How much of the horizon the cooldown takes; (0, 1]."""
    period: int | None = None
    """The steps of the first cycle; >= 1."""
    period_mult: int | None = None
    """How much longer each cycle is than the one before; 1 to 100."""
    peak_fraction: float | None = None
    """Where in the cycle the peak is; (0, 1]."""
    start_division: float | None = None
    """The peak over the LR at the start; >= 1."""
    final_division: float | None = None
    """The LR at the start over the final LR; >= 1."""
    patience: int | None = None
    """So many steps in a row without (or with) improvement move nothing yet; >= 0."""
    threshold: float | None = None
    """The least improvement that counts, as a fraction of the best loss; [0, 1]."""
    cooldown: int | None = None
    """Steps after a reduction in which stagnation does not count; >= 0."""
    smoothing: int | None = None
    """The span of the loss's moving average, in steps; 1: none."""

    def __post_init__(self) -> None:
        """Check every field."""
        if not isinstance(self.kind, ScheduleKind):
            raise InvalidFieldError("kind", f"must be a ScheduleKind, is {self.kind!r:.100}")
        self._check_belonging()
        check_real("base_lr", self.base_lr, least=MIN_BASE_LR, most=MAX_BASE_LR)
        check_whole("warmup", self.warmup, low=0, high=MAX_STEPS, unit="steps")
        check_real("final_lr", self.final_lr, least=0.0, most=1.0)
        watches = self.kind in (ScheduleKind.PLATEAU, ScheduleKind.GREEDY)
        check_real("factor", self.factor, above=0.0, most=MAX_STEADY_FACTOR if watches else 1.0)
        check_real("cooldown_fraction", self.cooldown_fraction, above=0.0, most=1.0)
        check_whole("period", self.period, low=1, high=MAX_STEPS, unit="steps")
        check_whole("period_mult", self.period_mult, low=1, high=100)
        check_real("peak_fraction", self.peak_fraction, above=0.0, most=1.0)
        check_real("start_division", self.start_division, least=1.0, most=1e12)
        check_real("final_division", self.final_division, least=1.0, most=1e12)
        check_whole("patience", self.patience, low=0, high=MAX_COUNT, unit="steps")
        check_real("threshold", self.threshold, least=0.0, most=1.0)
        check_whole("cooldown", self.cooldown, low=0, high=MAX_COUNT, unit="steps")
        check_whole("smoothing", self.smoothing, low=1, high=MAX_STEPS, unit="steps")
        self._check_milestones()

    def _check_belonging(self) -> None:
        known = SHAPES[self.kind]
        own = {"kind", "base_lr", "warmup", *known}
        for name in self.given():
            if name not in own:
                takes = ", ".join(known) or "none"
                raise InvalidFieldError(
                    name, f"the schedule {self.kind.spelling} has no such parameter; its own: {takes}"
                )

    def _check_milestones(self) -> None:
        if self.milestones is None:
            return
        check_type("milestones", self.milestones, tuple, "a tuple of steps")
        if not 1 <= len(self.milestones) <= MAX_MILESTONES:
            raise InvalidFieldError(
                "milestones", f"must be 1 to {MAX_MILESTONES} steps, are {len(self.milestones)}"
            )
        for milestone in self.milestones:
            check_whole("milestones", milestone, low=1, high=MAX_STEPS, unit="steps")
        if any(after <= before for before, after in pairwise(self.milestones)):
            raise InvalidFieldError("milestones", f"must rise, are {list(self.milestones)}")

    def resolved(self) -> Self:
        """Return this spec with its defaults, but for those that depend on the run.

        What a run is stored with: a later default must change no run.
        """
        return self.completed_by(type(self)(self.kind, warmup=0, **SHAPES[self.kind]))

    def digest(self) -> str:
        """Return what identifies the shape: a SHA-256 in hexadecimal.

        Of canonical JSON of the kind and the resolved shape: specs that differ in `base_lr` and
        `warmup` alone, or in whether a default was written out, have one digest.
        """
        resolved = self.resolved()
        shape = {name: getattr(resolved, name) for name in SHAPES[self.kind]}
        fields = {"kind": self.kind.spelling, **shape}
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def check_horizon(self, horizon: int | None) -> None:
        """Check the spec against the horizon of its run.

        Raises:
            InvalidFieldError: the kind needs a horizon (`horizon`), or the warmup fills it (`warmup`).
        """
        instead = INSTEAD_OF_HORIZON.get(self.kind)
        if horizon is None:
            if self.kind in NEED_HORIZON:
                raise InvalidFieldError(
                    "horizon", f"the schedule {self.kind.spelling} needs the total number of steps; give it"
                )
            if instead is not None and getattr(self, instead) is None:
                raise InvalidFieldError(
                    "horizon",
                    f"the schedule {self.kind.spelling} needs the total number of steps, or its {instead}",
                )
        elif (self.kind in NEED_HORIZON or instead is not None) and (self.warmup or 0) >= horizon:
            raise InvalidFieldError(
                "warmup", f"must be below the horizon, {horizon} steps, is {self.warmup}: nothing is left"
            )
