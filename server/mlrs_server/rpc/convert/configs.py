"""Conversion of configs of runs."""

from __future__ import annotations

from collections.abc import Collection
from enum import IntEnum
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from mlrs_core.config import (
    AdaptScope,
    FoundRate,
    MetaConfig,
    MetaOrder,
    Optimizer,
    RankReduction,
    RanksConfig,
    Recalled,
    RunConfig,
    ScheduleKind,
    ScheduleSpec,
)
from mlrs_core.config.schedule import SHAPES
from mlrs_core.errors import InvalidFieldError
from mlrs_proto import v1 as pb
from mlrs_server.errors import invalid_field

_OPTIMIZERS: frozenset[int] = frozenset(Optimizer)
_OPTIONAL = (
    "horizon",
    "num_classes",
    "scale",
    "snapshot",
    "momentum",
    "initial_lr",
    "min_lr",
    "max_lr",
    "lr_offset",
    "batch_size",
)
_OF_META = ("every", "learning_rate", "weight_decay", "max_change", "clip", "blow_up")
_OF_EVERY_SCHEDULE = ("base_lr", "warmup")
Choice = TypeVar("Choice", bound=IntEnum)


def config_from_proto(message: pb.RunConfig) -> RunConfig:
    """Return a run's config, validated.

    Raises:
        AdvisorError: a field is out of range; named as `config.<field>`.
    """
    values = _set_fields(message, _OPTIONAL)
    if message.optimizer not in _OPTIMIZERS:
        raise invalid_field("config.optimizer", f"must be one of the contract's, is {message.optimizer}")
    if message.model and message.HasField("schedule"):
        raise invalid_field("config.schedule", "a run has a model or a schedule; leave one of them out")
    if message.HasField("found"):
        raise invalid_field("config.found", "must be left out: a search (SearchTrial) sets it")
    if message.HasField("recalled"):
        raise invalid_field(
            "config.recalled", "must be left out: the daemon sets it (OpenRunRequest.explore)"
        )
    try:
        schedule = _schedule_from_proto(message.schedule) if message.HasField("schedule") else None
        meta = _meta_from_proto(message.meta) if message.HasField("meta") else None
        ranks = _ranks_from_proto(message.ranks) if message.HasField("ranks") else None
        optimizer = Optimizer(message.optimizer)
        return RunConfig(
            **values,
            optimizer=optimizer,
            schedule=schedule,
            meta=meta,
            ranks=ranks,
            rescue=message.rescue,
        )
    except InvalidFieldError as error:
        raise invalid_field(f"config.{error.field}", error.problem) from error


def config_to_proto(config: RunConfig, model_ref: str) -> pb.RunConfig:
    """Return a run's config, and the reference of its model, as a message."""
    return pb.RunConfig(
        model=model_ref or None,
        optimizer=pb.Optimizer.ValueType(config.optimizer),
        schedule=_schedule_to_proto(config.schedule),
        meta=_meta_to_proto(config.meta),
        ranks=_ranks_to_proto(config.ranks),
        found=_found_to_proto(config.found),
        recalled=recalled_to_proto(config.recalled),
        rescue=config.rescue or None,
        **{name: getattr(config, name) for name in _OPTIONAL},
    )


def _schedule_from_proto(message: pb.Schedule) -> ScheduleSpec:
    if (name := message.WhichOneof("kind")) is None:
        raise InvalidFieldError("schedule.kind", "must be one of the contract's kinds, is none; name one")
    kind = ScheduleKind[name.upper()]
    shape = _set_fields(getattr(message, name), SHAPES[kind])
    if "milestones" in shape:
        shape["milestones"] = tuple(shape["milestones"])
    try:
        return ScheduleSpec(kind, **_set_fields(message, _OF_EVERY_SCHEDULE), **shape)
    except InvalidFieldError as error:
        raise error.within("schedule") from error


def _schedule_to_proto(spec: ScheduleSpec | None) -> pb.Schedule | None:
    if spec is None:
        return None
    message = pb.Schedule(base_lr=spec.base_lr, warmup=spec.warmup)
    shape: Any = getattr(message, spec.kind.name.lower())
    shape.SetInParent()
    given = {name: value for name in SHAPES[spec.kind] if (value := getattr(spec, name)) is not None}
    shape.MergeFrom(type(shape)(**given))
    return message


def _meta_from_proto(message: pb.Meta) -> MetaConfig:
    try:
        return MetaConfig(
            scope=_one_of(AdaptScope, message.scope, "scope"),
            order=_one_of(MetaOrder, message.order, "order"),
            **_set_fields(message, _OF_META),
        )
    except InvalidFieldError as error:
        raise error.within("meta") from error


def _meta_to_proto(meta: MetaConfig | None) -> pb.Meta | None:
    if meta is None:
        return None
    return pb.Meta(
        scope=pb.AdaptScope.ValueType(meta.scope or 0),
        order=pb.MetaOrder.ValueType(meta.order or 0),
        **{name: getattr(meta, name) for name in _OF_META},
    )


def _ranks_from_proto(message: pb.Ranks) -> RanksConfig:
    try:
        return RanksConfig(
            reduction=_one_of(RankReduction, message.reduction, "reduction"),
            straggler_timeout_s=_seconds(message.straggler_timeout)
            if message.HasField("straggler_timeout")
            else None,
            quorum=message.quorum if message.HasField("quorum") else None,
        )
    except InvalidFieldError as error:
        raise error.within("ranks") from error


def _ranks_to_proto(ranks: RanksConfig | None) -> pb.Ranks | None:
    if ranks is None:
        return None
    message = pb.Ranks(
        reduction=pb.RankReduction.ValueType(ranks.reduction or 0),
        quorum=ranks.quorum,
    )
    if ranks.straggler_timeout_s is not None:
        message.straggler_timeout.FromNanoseconds(round(ranks.straggler_timeout_s * 1e9))
    return message


def _found_to_proto(found: FoundRate | None) -> pb.FoundRate | None:
    if found is None:
        return None
    return pb.FoundRate(
        learning_rate=found.learning_rate, octaves=found.octaves, steps=found.steps, charged=found.charged
    )


def recalled_to_proto(recalled: Recalled | None) -> pb.Recalled | None:
    """Return what the memory of a task has decided as a message."""
    if recalled is None:
        return None
    return pb.Recalled(
        why=recalled.why,
        decided=recalled.decided,
        measure=pb.Measure.ValueType(recalled.measure),
        expected_low=recalled.expected_low,
        expected_high=recalled.expected_high,
    )


def _seconds(duration: Duration) -> float:
    return (duration.seconds * 10**9 + duration.nanos) / 1e9


def _one_of(kind: type[Choice], value: int, field: str) -> Choice | None:
    """Return the member of an enumeration for a number of the contract; `None` for 0, unspecified."""
    try:
        return kind(value) if value else None
    except ValueError as error:
        raise InvalidFieldError(
            field, f"must be one of the contract's {kind.__name__}, is {value}"
        ) from error


def _set_fields(message: Message, names: Collection[str]) -> dict[str, Any]:
    """Return the values of those of the optional fields `names` that are set."""
    return {field.name: value for field, value in message.ListFields() if field.name in names}
