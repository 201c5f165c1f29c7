"""Conversion of proto messages to the client's values and back."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from mlrs.errors import InvalidArgumentError
from mlrs.values.types import (
    AdviceReason,
    ModelInfo,
    Optimizer,
    RankReduction,
    Ranks,
    RecordChunk,
    RunConfig,
    RunInfo,
    RunStatus,
    Schedule,
    ScheduleKind,
)
from mlrs.wire import meta_convert as meta
from mlrs.wire.extras import signals_from_proto, validations_from_proto
from mlrs.wire.memory_convert import recalled_from_proto
from mlrs.wire.search_calls import found_from_proto
from mlrs_proto import v1 as pb

_OPTIMIZERS: dict[pb.Optimizer.ValueType, Optimizer] = {
    pb.OPTIMIZER_SGD: Optimizer.SGD,
    pb.OPTIMIZER_MOMENTUM: Optimizer.MOMENTUM,
    pb.OPTIMIZER_NESTEROV: Optimizer.NESTEROV,
    pb.OPTIMIZER_ADAM: Optimizer.ADAM,
    pb.OPTIMIZER_ADAMW: Optimizer.ADAMW,
    pb.OPTIMIZER_OTHER: Optimizer.OTHER,
}
_STATUSES: dict[pb.RunStatus.ValueType, RunStatus] = {
    pb.RUN_STATUS_ACTIVE: RunStatus.ACTIVE,
    pb.RUN_STATUS_DIVERGED: RunStatus.DIVERGED,
    pb.RUN_STATUS_FINISHED: RunStatus.FINISHED,
}
_REASONS: dict[pb.AdviceReason.ValueType, AdviceReason] = {
    pb.ADVICE_REASON_FRESH: AdviceReason.FRESH,
    pb.ADVICE_REASON_REPLAYED: AdviceReason.REPLAYED,
    pb.ADVICE_REASON_HELD: AdviceReason.HELD,
}
_REDUCTIONS: dict[pb.RankReduction.ValueType, RankReduction] = {
    pb.RANK_REDUCTION_MEAN: RankReduction.MEAN,
    pb.RANK_REDUCTION_MEDIAN: RankReduction.MEDIAN,
}
_OPTIMIZERS_TO_PROTO = {value: number for number, value in _OPTIMIZERS.items()}
_STATUSES_TO_PROTO = {value: number for number, value in _STATUSES.items()}
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
"""The fields of a config that the contract marks as optional."""


def config_to_proto(config: RunConfig) -> pb.RunConfig:
    """Return the message of a config; what is `None` stays unset."""
    given = {name: value for name in _OPTIONAL if (value := getattr(config, name)) is not None}
    message = pb.RunConfig(model=config.model, rescue=config.rescue, **given)
    if config.optimizer is not None:
        message.optimizer = _OPTIMIZERS_TO_PROTO[config.optimizer]
    if (schedule := config.schedule) is not None:
        message.schedule.CopyFrom(_schedule_to_proto(schedule))
    if config.meta is not None:
        message.meta.CopyFrom(meta.config_to_proto(config.meta))
    if (ranks := config.ranks) is not None:
        message.ranks.CopyFrom(_ranks_to_proto(ranks))
    return message


def _ranks_to_proto(ranks: Ranks) -> pb.Ranks:
    reductions = {value: number for number, value in _REDUCTIONS.items()}
    message = pb.Ranks(
        reduction=pb.RANK_REDUCTION_UNSPECIFIED if ranks.reduction is None else reductions[ranks.reduction],
        quorum=ranks.quorum,
    )
    if ranks.straggler_timeout_s is not None:
        message.straggler_timeout.FromNanoseconds(round(ranks.straggler_timeout_s * 1e9))
    return message


def _ranks_from_proto(message: pb.Ranks) -> Ranks:
    timeout = message.straggler_timeout if message.HasField("straggler_timeout") else None
    return Ranks(
        reduction=_REDUCTIONS.get(message.reduction),
        straggler_timeout_s=None if timeout is None else (timeout.seconds * 10**9 + timeout.nanos) / 1e9,
        quorum=message.quorum if message.HasField("quorum") else None,
    )


def config_from_proto(message: pb.RunConfig) -> RunConfig:
    """Return the config in a message; what is unset becomes `None`."""
    given: dict[str, Any] = {
        descriptor.name: value for descriptor, value in message.ListFields() if descriptor.name in _OPTIONAL
    }
    return RunConfig(
        model=message.model or None,
        optimizer=_OPTIMIZERS.get(message.optimizer),
        schedule=_schedule_from_proto(message.schedule) if message.HasField("schedule") else None,
        meta=meta.config_from_proto(message.meta) if message.HasField("meta") else None,
        ranks=_ranks_from_proto(message.ranks) if message.HasField("ranks") else None,
        found=found_from_proto(message.found) if message.HasField("found") else None,
        recalled=recalled_from_proto(message.recalled) if message.HasField("recalled") else None,
        rescue=message.rescue or None,
        **given,
    )


def _schedule_to_proto(schedule: Schedule) -> pb.Schedule:
    given = {name: value for name, value in vars(schedule).items() if value is not None}
    if (stated := given.pop("kind")) not in ScheduleKind.__members__.values():
        raise InvalidArgumentError(
            f"this client knows no schedule {stated!r}; use a newer one", field="config.schedule.kind"
        )
    kind = ScheduleKind(stated).name.lower()
    of_every = {name: given.pop(name) for name in ("base_lr", "warmup") if name in given}
    message = pb.Schedule(**of_every)
    shape: Any = getattr(message, kind)
    shape.SetInParent()
    own = shape.DESCRIPTOR.fields_by_name
    if wrong := next((name for name in given if name not in own), None):
        raise InvalidArgumentError(
            f"the schedule {schedule.kind} has no parameter {wrong}; its own: {', '.join(own) or 'none'}",
            field=f"config.schedule.{wrong}",
        )
    shape.MergeFrom(type(shape)(**given))
    return message


def _schedule_from_proto(message: pb.Schedule) -> Schedule:
    """Return the schedule in a message; a kind that this version does not know is called `unknown`."""
    name = message.WhichOneof("kind")
    shape = [] if name is None else getattr(message, name).ListFields()
    given: dict[str, Any] = {descriptor.name: value for descriptor, value in (*message.ListFields(), *shape)}
    if "milestones" in given:
        given["milestones"] = tuple(given["milestones"])
    known = {field.name for field in dataclasses.fields(Schedule)}
    return Schedule(
        ScheduleKind[name.upper()] if name else "unknown",
        **{name: value for name, value in given.items() if name in known},
    )


def run_from_proto(message: pb.Run) -> RunInfo:
    """Return the run in a message."""
    return RunInfo(
        id=message.run_id,
        config=config_from_proto(message.config),
        status=_STATUSES.get(message.status, RunStatus.ACTIVE),
        next_step=message.next_step,
        durable_step=message.durable_step if message.HasField("durable_step") else -1,
        last_loss=message.last_loss if message.HasField("last_loss") else None,
        last_learning_rate=message.last_learning_rate if message.HasField("last_learning_rate") else None,
        create_time=_time(message.create_time),
        update_time=_time(message.update_time),
        meta=meta.status_from_proto(message.meta) if message.HasField("meta") else None,
        world_size=message.world_size,
        task=message.task,
        tags=dict(message.tags),
        note=message.note,
    )


def chunk_from_proto(message: pb.WatchRunResponse) -> RecordChunk:
    """Return the part of a record in a message."""
    return RecordChunk(
        run=run_from_proto(message.run),
        first_step=message.first_step,
        losses=tuple(message.losses),
        learning_rates=tuple(message.learning_rates),
        reasons=tuple(map(reason_from_proto, message.reasons)),
        updates=tuple(map(meta.record_from_proto, message.updates)),
        signals=signals_from_proto(message.signals, message.first_step),
        validations=validations_from_proto(message.validations, message.first_step),
        restores=tuple(message.first_step + entry for entry in message.restores),
        restored=tuple(message.first_step + entry for entry in message.restored),
    )


def model_from_proto(message: pb.Model) -> ModelInfo:
    """Return the model in a message."""
    return ModelInfo(
        ref=message.ref,
        name=message.name,
        digest=message.digest,
        aliases=tuple(message.aliases),
        architecture=message.architecture,
        architecture_parameters=_json(message.architecture_json),
        snapshots=message.snapshots,
        parameters=message.parameters,
        provenance=_json(message.provenance_json),
        size_bytes=message.size_bytes,
    )


def reason_from_proto(reason: pb.AdviceReason.ValueType) -> AdviceReason:
    """Return a reason; one that this version does not know counts as fresh."""
    return _REASONS.get(reason, AdviceReason.FRESH)


def status_to_proto(status: RunStatus | None) -> pb.RunStatus.ValueType:
    """Return the number of a status; `None` is unspecified, which stands for any."""
    return pb.RUN_STATUS_UNSPECIFIED if status is None else _STATUSES_TO_PROTO[status]


def _time(message: Timestamp) -> dt.datetime:
    return message.ToDatetime(tzinfo=dt.UTC)


def _json(text: str) -> Mapping[str, Any]:
    """Return a JSON object; text that is none, as a later daemon may send, is kept under `text`."""
    try:
        parsed = json.loads(text or "{}")
    except ValueError:
        parsed = None
    return parsed if isinstance(parsed, dict) else {"text": text}
