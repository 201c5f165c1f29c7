"""Values that users pass and receive: public as `mlrs` and `mlrs.types`."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from mlrs.values.checks import (
    MAX_COUNT,
    MAX_OFFSET,
    MAX_STEPS,
    flag,
    member,
    option,
    real,
    rising,
    string,
    whole,
)
from mlrs.values.meta_types import Meta, MetaRecord, MetaStatus
from mlrs.values.rank_types import RankStatus
from mlrs.values.search_types import FoundRate
from mlrs.values.signals import SignalRecord, ValidationRecord
from mlrs.values.task_types import Recalled


class Optimizer(enum.StrEnum):
    """The update rule that a learning rate is advised for."""

    SGD = "sgd"
    MOMENTUM = "momentum"
    NESTEROV = "nesterov"
    ADAM = "adam"
    ADAMW = "adamw"
    OTHER = "other"


class AdviceReason(enum.StrEnum):
    """Where the learning rate of an advice comes from."""

    FRESH = "fresh"
    """Computed from this observation."""
    REPLAYED = "replayed"
    """The observation was answered before; this is the recorded answer."""
    HELD = "held"
    """The loss was not finite; the last learning rate is held."""
    FALLBACK = "fallback"
    """The daemon was unreachable, and the client's fallback answered."""


class RankReduction(enum.StrEnum):
    """How the losses of the ranks are reduced to one."""

    MEAN = "mean"
    """Weighted by sample counts."""
    MEDIAN = "median"
    """Each rank counts once."""


class RunStatus(enum.StrEnum):
    """The status of a run."""

    ACTIVE = "active"
    """Takes observations."""
    DIVERGED = "diverged"
    """Its last losses were all non-finite; takes observations."""
    FINISHED = "finished"
    """Takes no more observations."""


class ScheduleKind(enum.StrEnum):
    """The kinds of hand-designed schedules."""

    CONSTANT = "constant"
    MULTI_STEP = "multi-step"
    EXPONENTIAL = "exponential"
    COSINE = "cosine"
    LINEAR = "linear"
    WSD = "wsd"
    ONE_CYCLE = "one-cycle"
    SGDR = "sgdr"
    PLATEAU = "plateau"
    GREEDY = "greedy"


@dataclass(frozen=True, repr=False)
class Schedule:
    """A hand-designed schedule for a run, instead of a model.

        advisor.run("task", policy=Schedule("wsd", base_lr=0.1, cooldown_fraction=0.1), horizon=10_000)

    `None` means the default. docs/guides/schedules.md has the defaults and the formulas. A parameter belongs
    to the kinds named with it; the daemon refuses it for other kinds.
    """

    kind: ScheduleKind | str
    """The kind: a `ScheduleKind` or its value."""
    _: KW_ONLY
    base_lr: float | None = option(real, least=1e-30, most=1e30)
    """The LR that the schedule multiplies. Default: the run's `initial_lr`, else the optimizer's
    default learning rate."""
    warmup: int | None = option(whole, low=0, high=MAX_STEPS)
    """Steps of linear warmup. Default: 0."""
    final_lr: float | None = option(real, least=0.0, most=1.0)
    """Cosine, linear, wsd, sgdr, plateau, greedy: the final LR, or its lower bound, as a fraction of the base
    LR."""
    milestones: Sequence[int] | None = option(rising)
    """Multi-step: the steps at which the LR is multiplied by `factor` once more."""
    factor: float | None = option(real, above=0.0, most=1.0)
    """Multi-step, exponential (each step), plateau, greedy: the factor that the LR is multiplied by."""
    cooldown_fraction: float | None = option(real, above=0.0, most=1.0)
    """Wsd: the cooldown's share of the horizon."""
    period: int | None = option(whole, low=1, high=MAX_STEPS)
    """Sgdr: the steps of the first cycle."""
    period_mult: int | None = option(whole, low=1, high=100)
    """Sgdr: the length of each cycle over that of the cycle before."""
    peak_fraction: float | None = option(real, above=0.0, most=1.0)
    """One-cycle: the share of the horizon before the peak, which is the base LR."""
    start_division: float | None = option(real, least=1.0, most=1e12)
    """One-cycle: the peak over the LR at the start."""
    final_division: float | None = option(real, least=1.0, most=1e12)
    """One-cycle: the LR at the start over the final LR."""
    patience: int | None = option(whole, low=0, high=2**23)
    """Plateau, greedy: the steps in a row without (greedy: or with) improvement that change nothing."""
    threshold: float | None = option(real, least=0.0, most=1.0)
    """Plateau, greedy: the least improvement that counts, as a fraction of the best loss."""
    cooldown: int | None = option(whole, low=0, high=2**23)
    """Plateau, greedy: the number of steps after a reduction in which stagnation does not count."""
    smoothing: int | None = option(whole, low=1, high=MAX_STEPS)
    """Plateau, greedy: the span of the loss's moving average, in steps; 1: none."""

    def __post_init__(self) -> None:
        """Convert milestones to a tuple, which is comparable and immutable."""
        if isinstance(self.milestones, Iterable) and not isinstance(self.milestones, (str, bytes)):
            object.__setattr__(self, "milestones", tuple(self.milestones))

    def __repr__(self) -> str:
        given = [f"{name}={value!r}" for name, value in vars(self).items() if value is not None]
        return f"Schedule({', '.join([repr(str(self.kind)), *given[1:]])})"


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """How the ranks of a distributed job share a run; `None` means the default."""

    reduction: RankReduction | None = None
    """How the losses are reduced to one. Default: their mean."""
    straggler_timeout_s: float | None = option(real, above=0.0, most=86_400.0)
    """The time after the first loss of a step, in seconds, from which `quorum` is enough. Default: never."""
    quorum: float | None = option(real, above=0.0, most=1.0)
    """The share of the ranks whose losses are enough then, > 0 and <= 1. Default: 0.5."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The settings that the advice of a run depends on besides its losses; `None` means not given."""

    model: str | None = option(string)
    """A name, an alias or `name@digest`; in a daemon's report always `name@digest`. `None` where the run
    follows a schedule."""
    horizon: int | None = option(whole, low=1, high=MAX_STEPS)
    """The total number of steps, 1 to 2**53."""
    num_classes: int | None = option(whole, low=2, high=MAX_COUNT)
    """The number of classes of a classification loss, at least 2."""
    scale: float | None = option(real, above=0.0)
    """The scale gamma; finite and > 0. `None`: the model's scale rule."""
    snapshot: int | None = option(whole, low=0)
    """The snapshot that a run without a horizon stays on. `None`: the middle one."""
    optimizer: Optimizer | None = option(member, of=Optimizer)
    """The update rule of the training loop."""
    momentum: float | None = option(real, least=0.0, below=1.0)
    """The optimizer's momentum (for Adam, beta 1), in [0, 1)."""
    initial_lr: float | None = option(real, above=0.0)
    """The learning rate to start from, for models that take one; finite and > 0."""
    min_lr: float | None = option(real, least=0.0)
    """No advice is below this; finite and >= 0."""
    max_lr: float | None = option(real, above=0.0)
    """No advice is above this; finite, > 0 and >= `min_lr`."""
    rescue: bool | None = option(flag)
    """Whether the losses are watched for a blow-up, and validation losses for overfitting: advice then asks
    to restore a saved state, and learning rates are halved or quartered from there on. In a daemon's report
    `True` or `None`."""
    lr_offset: float | None = option(real, least=-MAX_OFFSET, most=MAX_OFFSET)
    """Every learning rate is times 2**lr_offset, before `min_lr` and `max_lr`; -20 to 20 octaves."""
    batch_size: int | None = option(whole, low=1, high=MAX_STEPS)
    """The number of examples that a step trains on, over all ranks, 1 to 2**53."""
    schedule: Schedule | None = None
    """The schedule that the run follows instead of a model; in a daemon's report, with its defaults."""
    meta: Meta | None = None
    """Meta mode; in a daemon's report, with its defaults. `None`: the run is not in meta mode."""
    ranks: Ranks | None = None
    """How the ranks of a distributed job share the run. `None`: the run has no ranks."""
    found: FoundRate | None = None
    """What a search before the first step has found, in a daemon's report. `None`: there was no search."""
    recalled: Recalled | None = None
    """What the memory of the task decided when the run was created, in a daemon's report. `None`: the run
    takes no part in the memory."""

    @property
    def factor(self) -> float:
        """What every learning rate is multiplied by, before its bounds."""
        return float(2.0 ** (self.lr_offset or 0.0))


@dataclass(frozen=True, slots=True)
class Advice:
    """The answer to one observation."""

    step: int
    """The step it answers."""
    learning_rate: float
    """The learning rate for the update of that step."""
    reason: AdviceReason
    """Where the learning rate comes from."""
    durable_step: int
    """Observations up to and including this step survive a crash of the daemon; -1: none yet."""
    ranks_reported: int | None = None
    """The number of ranks whose losses were reduced. `None`: the run has no ranks, or this is a replay, for
    which the number is not stored."""
    restore: bool = False
    """Whether the training has blown up or overfits, in a run with `rescue`: after this update, put a saved
    state back in place, if there is one, and pass `restored=True` with the next observation."""


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """The daemon's report of a run."""

    id: str
    """Its id."""
    config: RunConfig
    """Its config, with defaults filled in and `model` as `name@digest`."""
    status: RunStatus
    """Its status."""
    next_step: int
    """The step of the next observation: the number of steps answered so far."""
    durable_step: int
    """Observations up to and including this step survive a crash; -1: none yet."""
    last_loss: float | None
    """The last loss observed, if any."""
    last_learning_rate: float | None
    """The last learning rate advised, if any."""
    create_time: dt.datetime
    """When it was created, in UTC."""
    update_time: dt.datetime
    """When its last observations were stored, in UTC."""
    meta: MetaStatus | None = None
    """The state of its meta updates; `None` for a run without meta mode."""
    world_size: int = 0
    """The number of its ranks; 0 without `config.ranks`."""
    task: str = ""
    """The task: the name of what is trained."""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Its tags, by name."""
    note: str = ""
    """A note of its owner, for people: plain text. It and the tags come from whoever may change the run; show
    them as text, never as markup."""
    ranks: RankStatus | None = None
    """Its ranks at present, which only `get_run` reads. `None`: it has none, or the daemon that answers does
    not have it in memory."""


@dataclass(frozen=True, kw_only=True)
class RunPage:
    """A page of a list of runs."""

    runs: tuple[RunInfo, ...]
    """The runs, in the order of the list."""
    cursor: str | None
    """Names the next page; `None`: there is none."""


@dataclass(frozen=True, kw_only=True)
class RecordChunk:
    """A part of a run's record: entry i belongs to step `first_step + i`."""

    run: RunInfo
    """The run as of this chunk."""
    first_step: int
    """The step of the first entry."""
    losses: tuple[float, ...] = field(repr=False)
    """One loss for each step."""
    learning_rates: tuple[float, ...] = field(repr=False)
    """One learning rate for each step."""
    reasons: tuple[AdviceReason, ...] = field(repr=False)
    """One reason for each step, fresh or held."""
    updates: tuple[MetaRecord, ...] = field(default=(), repr=False)
    """The meta updates of these steps, in order."""
    signals: tuple[SignalRecord, ...] = field(default=(), repr=False)
    """The signals that came with these steps, in order; most steps have none."""
    validations: tuple[ValidationRecord, ...] = field(default=(), repr=False)
    """The validation losses that came with these steps, in order."""
    restores: tuple[int, ...] = field(default=(), repr=False)
    """Those of these steps whose advice asked to restore a saved state."""
    restored: tuple[int, ...] = field(default=(), repr=False)
    """Those of these steps before which the training restored one."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A model that runs can name."""

    ref: str
    """`name@digest`, the digest's first 12 digits."""
    name: str
    """Its name."""
    digest: str
    """SHA-256 of its file, in hexadecimal."""
    aliases: tuple[str, ...]
    """The aliases that point at it."""
    architecture: str
    """The architecture's kind, such as `paper`."""
    architecture_parameters: Mapping[str, Any] = field(repr=False)
    """Its parameters, such as hidden size, layers and gate layout."""
    snapshots: int
    """How many snapshots it holds."""
    parameters: int
    """The number of weights in each snapshot."""
    provenance: Mapping[str, Any] = field(repr=False)
    """How it was made: method, tasks, seed, steps, versions."""
    size_bytes: int
    """The size of its file."""
