"""Conversion of runs, and of the requests that open and change them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from mlrs_core.config import MAX_HORIZON
from mlrs_core.memory import Explore
from mlrs_proto import v1 as pb
from mlrs_server.domain.notes import NoteChange
from mlrs_server.errors import about, invalid_field
from mlrs_server.live.views import RunView
from mlrs_server.rpc.convert.configs import config_from_proto, config_to_proto
from mlrs_server.runs.open_request import Opened, OpenMode, OpenRequest
from mlrs_server.runs.past import Outcome
from mlrs_server.tenancy import bare, check_feeder, check_run_id, full_name

FEEDER_KEY = "mlrs-feeder"
"""The metadata key of the id of the process that sends a stream's observations."""
_MODES: dict[int, OpenMode] = {
    pb.OPEN_MODE_UNSPECIFIED: "open",
    pb.OPEN_MODE_CREATE: "create",
    pb.OPEN_MODE_RESUME: "resume",
    pb.OPEN_MODE_BEGIN: "begin",
    pb.OPEN_MODE_RESTART: "restart",
}


def mode_from_proto(value: int) -> OpenMode:
    """Return the mode of opening a run.

    Raises:
        AdvisorError: the value is unknown.
    """
    if value not in _MODES:
        raise invalid_field("mode", f"must be one of the contract's OpenMode, is {value}")
    return _MODES[value]


def opening_from_proto(message: pb.OpenRunRequest, tenant: str, *, among: int = 1) -> OpenRequest:
    """Return the request to open a run of a tenant; `among` is the number of runs that the call opens.

    Raises:
        AdvisorError: a field is out of range.
    """
    rewinds = message.HasField("resume_from")
    resizes = message.HasField("world_size")
    with about(message.run_id, among=among):
        return OpenRequest(
            run_id=full_name(tenant, check_run_id(message.run_id)),
            asked=config_from_proto(message.config),
            model=message.config.model,
            mode=mode_from_proto(message.mode),
            group=message.group and full_name(tenant, check_run_id(message.group, "group")),
            resume_from=step_from_proto(message.resume_from, "resume_from") if rewinds else None,
            world_size=message.world_size if resizes else None,
            task=message.task,
            feeder=message.feeder,
            explore=explore_from_proto(message.explore),
            tags=dict(message.tags),
            note=message.note,
            **_fallback_from_proto(message),
        )


def _fallback_from_proto(message: pb.OpenRunRequest) -> dict[str, int]:
    """Return what a request says of the steps that its client's fallback has answered."""
    told: dict[str, int] = {}
    if message.HasField("fallback_from"):
        told["fallback_from"] = step_from_proto(message.fallback_from, "fallback_from")
    if message.HasField("fallback_steps"):
        told["fallback_steps"] = step_from_proto(message.fallback_steps, "fallback_steps")
        if not (told["fallback_steps"] and "fallback_from" in told):
            raise invalid_field(
                "fallback_steps", "must be at least 1, with fallback_from; leave both out if there are none"
            )
    return told


def note_change_from_proto(message: pb.UpdateRunRequest) -> NoteChange:
    """Return a change of a run's tags and note.

    Raises:
        AdvisorError: a tag or the note is malformed.
    """
    return NoteChange(
        set_tags=dict(message.set_tags),
        remove_tags=message.remove_tags,
        note=message.note if message.HasField("note") else None,
    )


def explore_from_proto(value: int) -> Explore | None:
    """Return what a new run takes from the memory of its task; `None`: nothing.

    Raises:
        AdvisorError: the value is unknown.
    """
    if value == pb.EXPLORE_UNSPECIFIED:
        return None
    if value not in tuple(Explore):
        raise invalid_field("explore", f"must be one of the contract's Explore, is {value}")
    return Explore(value)


def outcome_from_proto(message: pb.FinishRunRequest) -> Outcome:
    """Return what a caller says of how a run ended.

    Raises:
        AdvisorError: the metric is not finite.
    """
    return Outcome(
        metric=metric_from_proto(message.metric, "metric") if message.HasField("metric") else None,
        higher_is_better=message.higher_is_better,
        validation_loss=message.validation_loss if message.HasField("validation_loss") else None,
    )


def metric_from_proto(value: float, field: str) -> float:
    """Return a metric.

    Raises:
        AdvisorError: it is not finite.
    """
    if not math.isfinite(value):
        raise invalid_field(field, f"must be finite, is {value}; leave it out if there is none")
    return value


def feeder_from_metadata(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """Return the id of the process that sends a stream's observations; "" if it is not given.

    Raises:
        AdvisorError: it is malformed.
    """
    value = next((value for key, value in metadata or () if key == FEEDER_KEY), "")
    return check_feeder(value if isinstance(value, str) else repr(value), FEEDER_KEY)


def opened_to_proto(opened: Opened, *, has_notes: bool = True) -> pb.OpenRunResponse:
    """Return an opened run as a message, with its tags and its note or without."""
    return pb.OpenRunResponse(
        run=run_to_proto(opened.view, has_notes=has_notes),
        run_handle=opened.handle,
        created=opened.created,
        took_over=opened.took_over,
    )


def step_from_proto(value: int, field: str) -> int:
    """Return a step, checked.

    Raises:
        AdvisorError: it exceeds the largest horizon.
    """
    if value > MAX_HORIZON:
        raise invalid_field(field, f"must be at most {MAX_HORIZON}, is {value}")
    return value


def run_to_proto(view: RunView, *, has_notes: bool = True) -> pb.Run:
    """Return a run as a message, with its tags and its note or without: those of many may be too long."""
    snapshot, config = view.snapshot, view.config
    begun = snapshot.next_step > 0
    return pb.Run(
        run_id=bare(view.run_id),
        config=config_to_proto(config, view.model_ref),
        status=pb.RunStatus.ValueType(snapshot.status),
        next_step=snapshot.next_step,
        durable_step=view.durable_step if view.durable_step >= 0 else None,
        last_loss=snapshot.last_loss if begun else None,
        last_learning_rate=snapshot.last_lr if begun else None,
        create_time=time_to_proto(view.create_time),
        update_time=time_to_proto(view.update_time),
        meta=_meta_status_to_proto(view),
        world_size=view.world_size or None,
        task=view.task,
        tags=dict(view.tags) if has_notes else None,
        note=view.note if has_notes else "",
    )


def _meta_status_to_proto(view: RunView) -> pb.MetaStatus | None:
    """Return the status of a run's meta updates as a message."""
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


def time_to_proto(seconds: float) -> Timestamp:
    """Return a time, in seconds since the epoch, as a message."""
    whole = math.floor(seconds)
    return Timestamp(seconds=whole, nanos=int((seconds - whole) * 1e9))
