"""Proto messages to the daemon's types, and back. Messages stop here."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import fields
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from mlrs_core.config import MAX_HORIZON, Optimizer, RunConfig
from mlrs_core.errors import InvalidFieldError
from mlrs_core.meta import AdaptScope, MetaConfig, MetaOrder
from mlrs_core.ranks import RankMode, RankReduction, RanksConfig
from mlrs_core.schedules import ScheduleKind, ScheduleSpec
from mlrs_proto.v1 import advisor_pb2 as pb
from mlrs_server.adapting.gradients import ElementType, Piece
from mlrs_server.adapting.making import Made
from mlrs_server.adapting.promotion import Promoted, PromoteRequest
from mlrs_server.adapting.updates import MetaUpdate
from mlrs_server.aliases import AliasChange
from mlrs_server.answers import Answer
from mlrs_server.entries import ENTRY, Entries
from mlrs_server.errors import AdvisorError, about, invalid_field
from mlrs_server.ledger import RunStatus
from mlrs_server.live import RunView
from mlrs_server.models import CatalogModel
from mlrs_server.names import bare, check_run_id, full_name, spoken
from mlrs_server.opening import Opened, OpenMode, OpenRequest
from mlrs_server.status import code_number
from mlrs_server.store import Observations

MAX_ENTRIES = 65_536
"""The most entries in a StreamAdvice message."""
MAX_UPDATES = 1024
"""The most meta updates in one."""
MAX_PAGE = 1000
"""The most runs or models in a page."""
DEFAULT_PAGE = 100
"""The size of a page that names none."""

_MODES: dict[int, OpenMode] = {
    pb.OPEN_MODE_UNSPECIFIED: "open",
    pb.OPEN_MODE_CREATE: "create",
    pb.OPEN_MODE_RESUME: "resume",
}
_OPTIMIZERS: frozenset[int] = frozenset(Optimizer)
_SCHEDULE_KINDS: frozenset[int] = frozenset(ScheduleKind)
_OPTIONAL = ("horizon", "num_classes", "scale", "snapshot", "momentum", "initial_lr", "min_lr", "max_lr")
_ELEMENT_TYPES: frozenset[int] = frozenset(ElementType)
_OF_META = ("every", "learning_rate", "weight_decay", "max_change", "clip", "blow_up")
_OF_RANKS = ("straggler_timeout_s", "quorum")
Choice = TypeVar("Choice", bound=IntEnum)
_OF_SCHEDULE = tuple(field.name for field in fields(ScheduleSpec) if field.name not in {"kind", "milestones"})


def config_from(message: pb.RunConfig) -> RunConfig:
    """Return a run's config, checked.

    Raises:
        AdvisorError: a field is out of range; named as `config.<field>`.
    """
    values = _given(message, _OPTIONAL)
    if message.optimizer not in _OPTIMIZERS:
        raise invalid_field("config.optimizer", f"must be one of the contract's, is {message.optimizer}")
    if message.model and message.HasField("schedule"):
        raise invalid_field("config.schedule", "a run has a model or a schedule; leave one of them out")
    try:
        schedule = _schedule_from(message.schedule) if message.HasField("schedule") else None
        meta = _meta_from(message.meta) if message.HasField("meta") else None
        ranks = _ranks_from(message.ranks) if message.HasField("ranks") else None
        optimizer = Optimizer(message.optimizer)
        return RunConfig(**values, optimizer=optimizer, schedule=schedule, meta=meta, ranks=ranks)
    except InvalidFieldError as error:
        raise invalid_field(f"config.{error.field}", error.problem) from error


def _schedule_from(message: pb.Schedule) -> ScheduleSpec:
    """Return the schedule in a message.

    Raises:
        InvalidFieldError: a parameter is out of range, or of no meaning to the kind.
    """
    if message.kind not in _SCHEDULE_KINDS:
        raise InvalidFieldError(
            "schedule.kind", f"must be one of the contract's ScheduleKind, is {message.kind}"
        )
    values = _given(message, _OF_SCHEDULE)
    try:
        return ScheduleSpec(
            ScheduleKind(message.kind), milestones=tuple(message.milestones) or None, **values
        )
    except InvalidFieldError as error:
        raise error.within("schedule") from error


def _schedule_to(spec: ScheduleSpec | None) -> pb.Schedule | None:
    """Return a schedule as a message."""
    if spec is None:
        return None
    return pb.Schedule(
        kind=pb.ScheduleKind.ValueType(spec.kind),
        milestones=spec.milestones or (),
        **{name: getattr(spec, name) for name in _OF_SCHEDULE},
    )


def _meta_from(message: pb.Meta) -> MetaConfig:
    """Return how a network goes on learning.

    Raises:
        InvalidFieldError: a value is out of range.
    """
    try:
        return MetaConfig(
            scope=_one_of(AdaptScope, message.scope, "scope"),
            order=_one_of(MetaOrder, message.order, "order"),
            **_given(message, _OF_META),
        )
    except InvalidFieldError as error:
        raise error.within("meta") from error


def _meta_to(meta: MetaConfig | None) -> pb.Meta | None:
    """Return how a network goes on learning as a message."""
    if meta is None:
        return None
    return pb.Meta(
        scope=pb.AdaptScope.ValueType(meta.scope or 0),
        order=pb.MetaOrder.ValueType(meta.order or 0),
        **{name: getattr(meta, name) for name in _OF_META},
    )


def _ranks_from(message: pb.Ranks) -> RanksConfig:
    """Return how ranks share a run.

    Raises:
        InvalidFieldError: a value is out of range.
    """
    try:
        return RanksConfig(
            mode=_one_of(RankMode, message.mode, "mode"),
            reduction=_one_of(RankReduction, message.reduction, "reduction"),
            **_given(message, _OF_RANKS),
        )
    except InvalidFieldError as error:
        raise error.within("ranks") from error


def _ranks_to(ranks: RanksConfig | None) -> pb.Ranks | None:
    """Return how ranks share a run as a message."""
    if ranks is None:
        return None
    return pb.Ranks(
        mode=pb.RankMode.ValueType(ranks.mode or 0),
        reduction=pb.RankReduction.ValueType(ranks.reduction or 0),
        **{name: getattr(ranks, name) for name in _OF_RANKS},
    )


def _one_of(kind: type[Choice], value: int, field: str) -> Choice | None:
    """Return the member of a choice that a number of the contract means; `None` for 0, not said.

    Raises:
        InvalidFieldError: there is none.
    """
    try:
        return kind(value) if value else None
    except ValueError as error:
        raise InvalidFieldError(
            field, f"must be one of the contract's {kind.__name__}, is {value}"
        ) from error


def _given(message: Message, names: Collection[str]) -> dict[str, Any]:
    """Return those of some optional fields that are set, by name."""
    return {field.name: value for field, value in message.ListFields() if field.name in names}


def mode_from(value: int) -> OpenMode:
    """Return what opening may do.

    Raises:
        AdvisorError: the value is unknown.
    """
    if value not in _MODES:
        raise invalid_field("mode", f"must be one of the contract's OpenMode, is {value}")
    return _MODES[value]


def opening_from(message: pb.CreateRunRequest, tenant: str, *, among: int = 1) -> OpenRequest:
    """Return what a call of a tenant asks to open, alone or among so many.

    Raises:
        AdvisorError: a field is out of range.
    """
    rewinds = message.HasField("resume_from")
    resizes = message.HasField("world_size")
    with about(message.run_id, among=among):
        return OpenRequest(
            run_id=full_name(tenant, check_run_id(message.run_id)),
            asked=config_from(message.config),
            model=message.config.model,
            mode=mode_from(message.mode),
            group=message.group and full_name(tenant, check_run_id(message.group, "group")),
            resume_from=step_from(message.resume_from, "resume_from") if rewinds else None,
            world_size=message.world_size if resizes else None,
        )


def opened_to(opened: Opened) -> pb.CreateRunResponse:
    """Return an opened run as a message."""
    return pb.CreateRunResponse(run=run_to(opened.view), run_handle=opened.handle, created=opened.created)


def page_size_from(value: int) -> int:
    """Return the size of a page.

    Raises:
        AdvisorError: it is too large.
    """
    if value > MAX_PAGE:
        raise invalid_field("page_size", f"must be at most {MAX_PAGE}, is {value}; ask for pages")
    return value or DEFAULT_PAGE


def status_from(value: int) -> RunStatus | None:
    """Return a status to filter by; `None` is any.

    Raises:
        AdvisorError: the value is unknown.
    """
    if value == pb.RUN_STATUS_UNSPECIFIED:
        return None
    if value not in tuple(RunStatus):
        raise invalid_field("status", f"must be one of the contract's RunStatus, is {value}")
    return RunStatus(value)


def step_from(value: int, field: str) -> int:
    """Return a step.

    Raises:
        AdvisorError: it is beyond any horizon.
    """
    if value > MAX_HORIZON:
        raise invalid_field(field, f"must be at most {MAX_HORIZON}, is {value}")
    return value


def entries_from(message: pb.StreamAdviceRequest) -> Entries:
    """Return a message's columns as entries.

    Raises:
        AdvisorError: there are none, too many, or their lengths differ; or a step is out of range.
    """
    handles, steps, losses = message.run_handles, message.steps, message.losses
    n = len(steps)
    if len(handles) != n or len(losses) != n:
        raise invalid_field(
            "steps",
            "run_handles, steps and losses must be of equal length, are "
            f"{len(handles)}, {n} and {len(losses)}",
        )
    ranks = message.ranks
    if ranks or message.sample_counts:
        _check_rank_columns(message, n)
    if n == 1:
        entries = entry_of(handles[0], step_from(steps[0], "steps"), losses[0])
        if ranks:
            entries.table["rank"] = ranks[0]
        return entries
    if not 1 <= n <= MAX_ENTRIES:
        raise invalid_field("steps", f"a message holds 1 to {MAX_ENTRIES} entries, this one {n}; split it")
    whole = np.array(steps, np.uint64)
    step_from(int(whole.max()), "steps")
    entries = Entries.of(np.array(handles, np.uint64), whole.astype(np.int64), np.array(losses, np.float64))
    if ranks:
        entries.table["rank"] = np.array(ranks, np.uint32)
    return entries


def _check_rank_columns(message: pb.StreamAdviceRequest, n: int) -> None:
    """Check that the columns about ranks are of a message's length, or empty.

    Raises:
        AdvisorError: one is not.
    """
    for name, column in (("ranks", message.ranks), ("sample_counts", message.sample_counts)):
        if len(column) not in (0, n):
            raise invalid_field(name, f"must be as long as steps, {n}, or empty; is of length {len(column)}")


def entry_of(handle: int, step: int, loss: float) -> Entries:
    """Return a single observation as entries: the quick way, for a training loop's every step."""
    table = np.zeros(1, ENTRY)
    table["handle"], table["step"], table["loss"] = handle, step, loss
    return Entries(table)


def columns_to(answer: Answer, tenant: str = "") -> pb.StreamAdviceResponse:
    """Return an answer as a message to a tenant."""
    entries = answer.entries
    message = pb.StreamAdviceResponse()
    advice = message.advice
    advice.learning_rates.extend(entries.lrs.tolist())
    advice.durable_steps.extend(entries.durable_steps.tolist())
    if answer.plain < len(entries):
        advice.reasons.extend(entries.reasons.tolist())
    if answer.ranks_reported:
        advice.ranks_reported.extend([answer.ranks_reported.get(index, 0) for index in range(len(entries))])
    for index, error in sorted(answer.errors.items()):
        advice.errors.append(_entry_error(index, error, tenant))
    return message


def _entry_error(index: int, error: AdvisorError, tenant: str) -> pb.EntryError:
    return pb.EntryError(
        index=index,
        code=code_number(error.reason),
        reason=pb.ErrorReason.ValueType(error.reason),
        message=spoken(str(error), tenant),
        expected_step=error.expected_step,
    )


def advice_to(step: int, answer: Answer) -> pb.AdviseResponse:
    """Return the only advice of an answer as a message."""
    return pb.AdviseResponse(
        step=step,
        learning_rate=float(answer.entries.lrs[0]),
        reason=pb.AdviceReason.ValueType(int(answer.entries.reasons[0])),
        durable_step=int(answer.entries.durable_steps[0]),
    )


def run_to(view: RunView) -> pb.Run:
    """Return a run as a message."""
    snapshot, config = view.snapshot, view.config
    begun = snapshot.next_step > 0
    return pb.Run(
        run_id=bare(view.run_id),
        config=pb.RunConfig(
            model=view.model_ref,
            optimizer=pb.Optimizer.ValueType(config.optimizer),
            schedule=_schedule_to(config.schedule),
            meta=_meta_to(config.meta),
            ranks=_ranks_to(config.ranks),
            **{name: getattr(config, name) for name in _OPTIONAL},
        ),
        status=pb.RunStatus.ValueType(snapshot.status),
        next_step=snapshot.next_step,
        durable_step=view.durable_step,
        last_loss=snapshot.last_loss if begun else None,
        last_learning_rate=snapshot.last_lr if begun else None,
        create_time=_time_to(view.create_time),
        update_time=_time_to(view.update_time),
        meta=_meta_status_to(view),
        world_size=view.world_size,
    )


def _meta_status_to(view: RunView) -> pb.MetaStatus | None:
    """Return what became of a run's meta updates as a message."""
    if (meta := view.meta) is None:
        return None
    status = pb.MetaStatus(
        updates=meta.updates,
        last_log_change=meta.last_log_change,
        clipped=meta.clipped,
        scaled=meta.scaled,
        returns=meta.returns,
    )
    if (last := view.last_update) is not None:
        status.last_step, status.last_alignment = last.step, last.alignment
        if last.validation_loss is not None:
            status.last_validation_loss = last.validation_loss
    return status


def record_to(view: RunView, first_step: int, record: Observations) -> pb.WatchRunResponse:
    """Return a stretch of a run's record as a message."""
    return pb.WatchRunResponse(
        run=run_to(view),
        first_step=first_step,
        losses=record.losses.tolist(),
        learning_rates=record.lrs.tolist(),
        reasons=record.reasons.tolist(),
        updates=[_update_to(update) for update in record.updates],
    )


def _update_to(update: MetaUpdate) -> pb.MetaRecord:
    return pb.MetaRecord(
        step=update.step,
        alignment=update.alignment,
        validation_loss=update.validation_loss,
        outcome=pb.MetaOutcome.ValueType(update.outcome),
        learning_rate=update.lr,
        log_change=update.log_change,
    )


def model_to(model: CatalogModel, aliases: Sequence[str]) -> pb.Model:
    """Return a model as a message."""
    architecture = model.model.architecture
    return pb.Model(
        ref=model.ref,
        name=model.name,
        digest=model.digest,
        aliases=aliases,
        architecture=architecture.kind,
        architecture_json=json.dumps(architecture.to_json(), sort_keys=True),
        snapshots=len(model.model.snapshots),
        parameters=model.model.parameters,
        provenance_json=json.dumps(dict(model.model.provenance), sort_keys=True),
        size_bytes=model.size_bytes,
    )


def import_header_from(message: pb.ImportModelRequest | None) -> tuple[str, str]:
    """Return the name, and the digest or "", of a model that is about to be uploaded.

    Raises:
        AdvisorError: the message is not a header.
    """
    if message is None or message.WhichOneof("kind") != "header":
        raise invalid_field(
            "header", "the first message must be the header, and the next ones the file's pieces"
        )
    return message.header.name, message.header.digest


def chunk_from(message: pb.ImportModelRequest) -> bytes:
    """Return a piece of a model's file.

    Raises:
        AdvisorError: the message is not a piece.
    """
    if message.WhichOneof("kind") != "chunk":
        raise invalid_field("chunk", "every message after the first must be a piece of the file")
    return message.chunk


def update_from(message: pb.AdaptRequest | pb.MetaUpdate) -> tuple[int, float | None]:
    """Return the step of a meta update, and the validation loss that was sent with it; NaN counts as none.

    Raises:
        AdvisorError: the step is out of range.
    """
    loss = message.validation_loss if message.HasField("validation_loss") else math.nan
    return step_from(message.step, "step"), None if math.isnan(loss) else loss


def check_updates(message: pb.StreamAdviceRequest) -> None:
    """Check a stream's message that has meta updates.

    Raises:
        AdvisorError: it has too many, or observations too.
    """
    if len(message.updates) > MAX_UPDATES:
        raise invalid_field(
            "updates", f"a message holds at most {MAX_UPDATES}, this one {len(message.updates)}; split it"
        )
    if message.steps or message.run_handles or message.losses:
        raise invalid_field(
            "updates", "a message has observations or meta updates; send one message for each, in their order"
        )


def made_to(made: Made) -> pb.AdaptResponse:
    """Return what became of a meta update as a message."""
    if (update := made.update) is None:
        return pb.AdaptResponse(
            updates=made.updates, outcome=pb.META_OUTCOME_WAITING, missing_shards=made.missing
        )
    return pb.AdaptResponse(
        applied=True,
        updates=made.updates,
        learning_rate=update.lr,
        outcome=pb.MetaOutcome.ValueType(update.outcome),
        log_change=update.log_change,
    )


def adaptations_to(made: Sequence[Made | AdvisorError], tenant: str) -> pb.StreamAdviceResponse:
    """Return what became of a message's meta updates as a message to a tenant."""
    message = pb.StreamAdviceResponse()
    adaptations = message.adaptations
    for index, one in enumerate(made):
        result = adaptations.results.add()
        if isinstance(one, AdvisorError):
            adaptations.errors.append(_entry_error(index, one, tenant))
        else:
            result.CopyFrom(made_to(one))
    return message


def gradients_header_from(message: pb.AdaptGradientsRequest | None) -> tuple[pb.AdaptRequest, int]:
    """Return the header of a stream of gradients, and how many elements are to come; 0: not said.

    Raises:
        AdvisorError: the message is not a header, or says what the gradients are to say.
    """
    if message is None or message.WhichOneof("kind") != "header":
        raise invalid_field(
            "header", "the first message must be the header, and the next ones pieces of both vectors"
        )
    if message.header.alignment:
        raise invalid_field("header.alignment", "is what the gradients give; leave it out, or call Adapt")
    return message.header, message.element_count


async def pieces_from(messages: AsyncIterator[pb.AdaptGradientsRequest]) -> AsyncIterator[Piece]:
    """Yield the pieces in a stream's messages.

    Raises:
        AdvisorError: a message is none, or of an unknown type.
    """
    async for message in messages:
        if message.WhichOneof("kind") != "chunk":
            raise invalid_field("chunk", "every message after the first must be a piece of both vectors")
        chunk = message.chunk
        if chunk.data_type not in _ELEMENT_TYPES:
            raise invalid_field("data_type", f"must be one of the contract's DataType, is {chunk.data_type}")
        yield Piece(ElementType(chunk.data_type), chunk.validation_gradient, chunk.direction)


def promotion_from(message: pb.PromoteModelRequest) -> PromoteRequest:
    """Return what a new version of a model is to be made of."""
    return PromoteRequest(
        model=message.model,
        alias=message.alias,
        prefix=message.prefix,
        min_updates=message.min_updates or 1,
        dry_run=message.dry_run,
    )


def promoted_to(made: Promoted, model: pb.Model | None) -> pb.PromoteModelResponse:
    """Return a new version of a model as a message; `model` is it, if it was made."""
    contributions = [
        pb.Contribution(run_id=run.run_id, updates=run.updates, relative_change=run.relative_change)
        for run in made.named
    ]
    return pb.PromoteModelResponse(
        model=model,
        contributions=contributions,
        relative_change=made.relative_change,
        run_count=made.count,
    )


def alias_change_to(change: AliasChange) -> pb.AliasChange:
    """Return a change of an alias as a message."""
    time = None if change.time is None else _time_to(change.time)
    return pb.AliasChange(time=time, model=change.target, cause=change.cause)


def _time_to(seconds: float) -> Timestamp:
    whole = math.floor(seconds)
    return Timestamp(seconds=whole, nanos=int((seconds - whole) * 1e9))
