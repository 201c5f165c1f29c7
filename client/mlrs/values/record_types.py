"""What the daemon reports of the record of a run, but for the whole: buckets, a few steps, and events."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlrs.values.meta_types import MetaRecord
from mlrs.values.signals import ValidationRecord
from mlrs.values.types import RunInfo


@dataclass(frozen=True, kw_only=True)
class RecordSummary:
    """A part of a run's record in buckets; entry i begins with step `first_step + i * steps_per_bucket`.

    To show a record that grows, drop all buckets from `first_step` on, and add these.
    """

    run: RunInfo
    """The run."""
    first_step: int
    """The first step of the first bucket."""
    steps_per_bucket: int
    """The number of steps of a bucket; the last may have fewer."""
    end_step: int
    """The step after the last one in these buckets."""
    min_losses: tuple[float, ...] = field(repr=False)
    """The smallest finite loss of each bucket; NaN: it has none."""
    max_losses: tuple[float, ...] = field(repr=False)
    """The greatest finite loss of each bucket; NaN: it has none."""
    mean_losses: tuple[float, ...] = field(repr=False)
    """The mean of the finite losses of each bucket; NaN: it has none."""
    min_learning_rates: tuple[float, ...] = field(repr=False)
    """The smallest learning rate of each bucket."""
    max_learning_rates: tuple[float, ...] = field(repr=False)
    """The greatest learning rate of each bucket."""
    mean_learning_rates: tuple[float, ...] = field(repr=False)
    """The mean learning rate of each bucket."""
    held: tuple[int, ...] = field(repr=False)
    """How many steps of each bucket were held, since their losses were not finite."""
    signals: Mapping[str, tuple[tuple[int, float], ...]] = field(repr=False)
    """By the name of each signal that came: the index of each bucket that has it, and its mean there."""
    validations: tuple[ValidationRecord, ...] = field(repr=False)
    """The last validation loss of each bucket that has some; `observed_step` is the bucket's first step."""
    updates: tuple[MetaRecord, ...] = field(repr=False)
    """The last meta update of each bucket that has some."""
    restores: tuple[int, ...] = field(repr=False)
    """The steps whose advice asked to restore a saved state; the first 1000."""
    restored: tuple[int, ...] = field(repr=False)
    """The steps before which the training restored one; the first 1000."""
    has_more: bool
    """Whether more of the part is recorded already: read on at the cursor."""
    cursor: str = field(repr=False)
    """Leads to the rest of the part, and later to what is new, in buckets of the same size."""


@dataclass(frozen=True, kw_only=True)
class RecordSample:
    """A few steps of a run's record, evenly spaced, the first and the newest among them."""

    steps: tuple[int, ...]
    """The steps, ascending."""
    losses: tuple[float, ...] = field(repr=False)
    """Their losses."""
    learning_rates: tuple[float, ...] = field(repr=False)
    """Their learning rates."""


class RunEventKind(enum.StrEnum):
    """What happened to a run."""

    RESUMED = "resumed"
    """A process opened it again."""
    REWOUND = "rewound"
    """It was rewound from `from_step` to `step`."""
    TAKEN_OVER = "taken_over"
    """Another process took it over while its feeder was connected."""
    RESIZED = "resized"
    """The number of its ranks became `count`."""
    FALLBACK = "fallback"
    """The training loop took `count` steps, the first of them `step`, at learning rates of the client's
    fallback. What the record has for these steps was advised afterwards."""
    OTHER = "other"
    """Something that this version of the client does not know."""


@dataclass(frozen=True, kw_only=True)
class RunEvent:
    """An event of a run."""

    number: int
    """Its number in the run, from 1."""
    time: dt.datetime
    """When it was recorded, in UTC."""
    kind: RunEventKind
    """What happened."""
    step: int
    """The step that it is about: the next one when it happened, or as the kind says."""
    from_step: int | None
    """As the kind says."""
    count: int | None
    """As the kind says."""
