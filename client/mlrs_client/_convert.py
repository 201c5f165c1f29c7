"""Proto messages to the client's values and back. Messages stop here, and in the streams."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from mlrs_client import _meta_convert as meta
from mlrs_client._types import (
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
    pb.ADVICE_REASON_FALLBACK: AdviceReason.FALLBACK,
}
_KINDS: dict[pb.ScheduleKind.ValueType, ScheduleKind] = {
    pb.SCHEDULE_KIND_CONSTANT: ScheduleKind.CONSTANT,
    pb.SCHEDULE_KIND_MULTI_STEP: ScheduleKind.MULTI_STEP,
    pb.SCHEDULE_KIND_EXPONENTIAL: ScheduleKind.EXPONENTIAL,
    pb.SCHEDULE_KIND_COSINE: ScheduleKind.COSINE,
    pb.SCHEDULE_KIND_LINEAR: ScheduleKind.LINEAR,
    pb.SCHEDULE_KIND_WSD: ScheduleKind.WSD,
    pb.SCHEDULE_KIND_ONE_CYCLE: ScheduleKind.ONE_CYCLE,
    pb.SCHEDULE_KIND_SGDR: ScheduleKind.SGDR,
    pb.SCHEDULE_KIND_PLATEAU: ScheduleKind.PLATEAU,
    pb.SCHEDULE_KIND_GREEDY: ScheduleKind.GREEDY,
}
_REDUCTIONS: dict[pb.RankReduction.ValueType, RankReduction] = {
    pb.RANK_REDUCTION_MEAN: RankReduction.MEAN,
    pb.RANK_REDUCTION_MEDIAN: RankReduction.MEDIAN,
}
_KINDS_TO_PROTO = {value: number for number, value in _KINDS.items()}
_OPTIMIZERS_TO_PROTO = {value: number for number, value in _OPTIMIZERS.items()}
_STATUSES_TO_PROTO = {value: number for number, value in _STATUSES.items()}
_OPTIONAL = ("horizon", "num_classes", "scale", "snapshot", "momentum", "initial_lr", "min_lr", "max_lr")
"""The fields of a config that the contract marks as optional."""


def config_to_proto(config: RunConfig) -> pb.RunConfig:
    """Return the message of a config; what is `None` stays unset."""
    given = {name: value for name in _OPTIONAL if (value := getattr(config, name)) is not None}
    message = pb.RunConfig(model=config.model or "", **given)
    if config.optimizer is not None:
        message.optimizer = _OPTIMIZERS_TO_PROTO[config.optimizer]
    if (schedule := config.schedule) is not None:
        given = {name: value for name, value in vars(schedule).items() if value is not None}
        kind = _KINDS_TO_PROTO[ScheduleKind(given.pop("kind"))]
        message.schedule.CopyFrom(pb.Schedule(kind=kind, **given))
    if config.meta is not None:
        message.meta.CopyFrom(meta.config_to_proto(config.meta))
    if (ranks := config.ranks) is not None:
        message.ranks.CopyFrom(_ranks_to_proto(ranks))
    return message


def _ranks_to_proto(ranks: Ranks) -> pb.Ranks:
    reductions = {value: number for number, value in _REDUCTIONS.items()}
    return pb.Ranks(
        reduction=pb.RANK_REDUCTION_UNSPECIFIED if ranks.reduction is None else reductions[ranks.reduction],
        straggler_timeout_s=ranks.straggler_timeout_s,
        quorum=ranks.quorum,
    )


def _ranks_from_proto(message: pb.Ranks) -> Ranks:
    timeout_s = message.straggler_timeout_s if message.HasField("straggler_timeout_s") else None
    return Ranks(
        reduction=_REDUCTIONS.get(message.reduction),
        straggler_timeout_s=timeout_s,
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
        **given,
    )


def _schedule_from_proto(message: pb.Schedule) -> Schedule:
    """Return the schedule in a message; a kind that this version does not know has its number for a name."""
    given: dict[str, Any] = {descriptor.name: value for descriptor, value in message.ListFields()}
    kind = _KINDS.get(given.pop("kind", pb.SCHEDULE_KIND_UNSPECIFIED), f"kind {message.kind}")
    if "milestones" in given:
        given["milestones"] = tuple(message.milestones)
    known = {field.name for field in dataclasses.fields(Schedule)}
    return Schedule(kind, **{name: value for name, value in given.items() if name in known})


def run_from_proto(message: pb.Run) -> RunInfo:
    """Return the run in a message."""
    return RunInfo(
        id=message.run_id,
        config=config_from_proto(message.config),
        status=_STATUSES.get(message.status, RunStatus.ACTIVE),
        next_step=message.next_step,
        durable_step=message.durable_step,
        last_loss=message.last_loss if message.HasField("last_loss") else None,
        last_learning_rate=message.last_learning_rate if message.HasField("last_learning_rate") else None,
        create_time=_time(message.create_time),
        update_time=_time(message.update_time),
        meta=meta.status_from_proto(message.meta) if message.HasField("meta") else None,
        world_size=message.world_size,
    )


def chunk_from_proto(message: pb.WatchRunResponse) -> RecordChunk:
    """Return the stretch of a record in a message."""
    return RecordChunk(
        run=run_from_proto(message.run),
        first_step=message.first_step,
        losses=tuple(message.losses),
        learning_rates=tuple(message.learning_rates),
        reasons=tuple(map(reason_from_proto, message.reasons)),
        updates=tuple(map(meta.record_from_proto, message.updates)),
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
