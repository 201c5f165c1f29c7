"""The options of runs and sweeps; `Advisor.run` explains each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

from mlrs.values.advised_step import AdvisedStep
from mlrs.values.meta_types import Meta
from mlrs.values.types import Optimizer, RankReduction, Schedule

DEFAULT_TIMEOUT_S = 2.0
"""The default deadline of a call, in seconds."""
RECORD_TIMEOUT_S = 60.0
"""The default deadline for reading a record, or going back to a step of it, in seconds."""
UPLOAD_TIMEOUT_S = 60.0
"""The default deadline for sending gradients, in seconds."""
OnExisting = Literal["error", "restart", "resume"]
"""What to do where the run with the given id has steps already: refuse to begin, drop its record and begin
again, or continue at its next step."""
Explore: TypeAlias = Literal["careful", "full", False]
"""What a new run takes from the memory of its task: the best known or what is close to it, whatever is most
likely to improve on it, or (`False`) the best known."""
OnUnavailable = Literal["auto", "error", "fallback"]
"""What a run does if no daemon answers when it is opened: raise, or begin with its fallback. `auto`: raise,
unless an adapter uses the run."""
FallbackLike: TypeAlias = Literal["auto", "last", "error"] | Schedule | Callable[[int], Any] | None
"""Where learning rates come from without a daemon: the last one, a schedule, or a function of the step; with
`error` or `None` errors are raised. `auto` is `last`, and `error` for a run of several ranks."""
OnAdvice: TypeAlias = Callable[[AdvisedStep], object]
"""What is told of each step of a run."""


class TaskOptions(TypedDict, total=False):
    """Those keyword arguments of `Advisor.run` whose names mean nothing else to an adapter."""

    policy: Schedule | str | None
    base_lr: float | None
    warmup: int | None
    horizon: int | None
    num_classes: int | None
    scale: float | None
    snapshot: int | None
    momentum: float | None
    initial_lr: float | None
    min_lr: float | None
    max_lr: float | None
    lr_offset: float | None
    batch_size: int | None
    meta: Meta | bool | None
    memory: bool
    explore: Explore
    rank: int | None
    world_size: int | None
    rank_reduction: RankReduction | str | None
    straggler_timeout_s: float | None
    quorum: float | None
    id: str | None
    on_existing: OnExisting
    resume_from: int | None
    fallback: FallbackLike
    on_unavailable: OnUnavailable
    on_advice: OnAdvice | None
    tags: Mapping[str, str] | None
    note: str | None
    timeout_s: float | None


class RunOptions(TaskOptions, total=False):
    """The keyword arguments of `Advisor.run`."""

    model: str | None
    optimizer: Optimizer | str | None
    rescue: bool | None


class SweepOptions(TypedDict, total=False):
    """The keyword arguments of `Advisor.sweep`.

    Options of a run's config are one value for all runs, or a list or array of one value for each run.
    """

    model: str | Sequence[str] | None
    policy: Schedule | str | Sequence[Schedule | str] | None
    base_lr: float | Sequence[float] | None
    warmup: int | Sequence[int] | None
    horizon: int | Sequence[int] | None
    num_classes: int | Sequence[int] | None
    scale: float | Sequence[float] | None
    snapshot: int | Sequence[int] | None
    optimizer: Optimizer | str | Sequence[Optimizer | str] | None
    momentum: float | Sequence[float] | None
    initial_lr: float | Sequence[float] | None
    min_lr: float | Sequence[float] | None
    max_lr: float | Sequence[float] | None
    rescue: bool | Sequence[bool] | None
    lr_offset: float | Sequence[float] | None
    batch_size: int | Sequence[int] | None
    meta: Meta | bool | Sequence[Meta | bool] | None
    task: str | None
    memory: bool | None
    explore: Explore
    on_existing: OnExisting
    resume_from: int | None
    fallback: FallbackLike
    tags: Mapping[str, str] | None
    note: str | None
    timeout_s: float | None
