"""Conversion of summaries and samples of records, and of the events of runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlrs_core.config import MAX_HORIZON
from mlrs_proto import v1 as pb
from mlrs_server.domain.run_events import RecordedEvent
from mlrs_server.domain.summaries import WIDEST
from mlrs_server.errors import invalid_field
from mlrs_server.rpc.convert.extras import signals_to_proto, validations_to_proto
from mlrs_server.rpc.convert.meta import meta_record_to_proto
from mlrs_server.rpc.convert.runs import run_to_proto, step_from_proto, time_to_proto
from mlrs_server.runs.summaries import MOST_BUCKETS, Part, Position, Sample, SummarizedRecord
from mlrs_server.tenancy import bare

DEFAULT_BUCKETS = 1000
"""The most buckets of a summary if the request does not say."""
MAX_SAMPLED_RUNS, MAX_SAMPLES, DEFAULT_SAMPLES = 100, 128, 32
"""The most runs that are sampled in a call, the most steps of each, and those if the request does not say."""
_NONE = "-"
"""What a token has in place of a step that is not given."""


def summary_from_proto(message: pb.SummarizeRecordRequest) -> Part | Position:
    """Return the part of a record that a request asks for, or where it goes on.

    Raises:
        AdvisorError: a field is out of range, or the token is malformed.
    """
    if message.page_token:
        return _position_from_token(message.page_token)
    first = step_from_proto(message.from_step, "from_step")
    to_step = step_from_proto(message.to_step, "to_step") if message.HasField("to_step") else None
    if to_step is not None and to_step <= first:
        raise invalid_field("to_step", f"must be greater than from_step, {first}, is {to_step}")
    if message.max_buckets > MOST_BUCKETS:
        raise invalid_field("max_buckets", f"must be at most {MOST_BUCKETS}, is {message.max_buckets}")
    return Part(first_step=first, to_step=to_step, most_buckets=message.max_buckets or DEFAULT_BUCKETS)


def _position_from_token(token: str) -> Position:
    try:
        width, begin, next_step, to_step, event, created = token.split(" ")
        position = Position(
            width=_number(width, WIDEST),
            begin=_number(begin),
            next_step=_number(next_step),
            to_step=None if to_step == _NONE else _number(to_step),
            event=_number(event),
            create_time=float.fromhex(created),
        )
        is_power = position.width > 0 and position.width & (position.width - 1) == 0
        aligned = is_power and position.begin % position.width == position.next_step % position.width == 0
        if not (aligned and math.isfinite(position.create_time)):
            raise ValueError
    except (ValueError, OverflowError) as error:
        raise invalid_field(
            "page_token", "must be the next_page_token of a summary of this run; leave it out to begin"
        ) from error
    return position


def _number(text: str, most: int = MAX_HORIZON) -> int:
    """Return a whole number that is not negative; raises `ValueError` if it is none, or too large."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and int(text) <= most):
        raise ValueError
    return int(text)


def _token_of(position: Position) -> str:
    to_step = _NONE if position.to_step is None else position.to_step
    numbers = (position.width, position.begin, position.next_step, to_step, position.event)
    return " ".join([*map(str, numbers), position.create_time.hex()])


def summary_to_proto(summarized: SummarizedRecord) -> pb.SummarizeRecordResponse:
    """Return a part of a record in buckets as a message."""
    summary = summarized.summary
    losses, lrs = ([column.tolist() for column in columns] for columns in (summary.losses, summary.lrs))
    return pb.SummarizeRecordResponse(
        run=run_to_proto(summarized.view),
        first_step=summary.first_step,
        steps_per_bucket=summary.width,
        end_step=summary.end,
        min_losses=losses[0],
        max_losses=losses[1],
        mean_losses=losses[2],
        min_learning_rates=lrs[0],
        max_learning_rates=lrs[1],
        mean_learning_rates=lrs[2],
        held=summary.held.tolist(),
        signals=signals_to_proto(summary.extras),
        validations=validations_to_proto(summary.extras),
        updates=map(meta_record_to_proto, summarized.updates),
        restores=summary.restores,
        restored=summary.restored,
        has_more=summarized.has_more,
        next_page_token=_token_of(summarized.position),
    )


def samples_from_proto(message: pb.SampleRecordsRequest) -> int:
    """Return how many steps of each run a request asks for.

    Raises:
        AdvisorError: that, or the number of runs, is out of range.
    """
    if not 1 <= len(message.run_ids) <= MAX_SAMPLED_RUNS:
        raise invalid_field(
            "run_ids", f"must be 1 to {MAX_SAMPLED_RUNS}, are {len(message.run_ids)}; split the call"
        )
    count = message.samples or DEFAULT_SAMPLES
    if not 2 <= count <= MAX_SAMPLES:
        raise invalid_field("samples", f"must be 2 to {MAX_SAMPLES}, is {count}")
    return count


def sample_to_proto(sample: Sample) -> pb.RecordSample:
    """Return a few steps of a run as a message."""
    return pb.RecordSample(
        run_id=bare(sample.run_id),
        steps=sample.steps.tolist(),
        losses=sample.losses.tolist(),
        learning_rates=sample.lrs.tolist(),
    )


def event_to_proto(event: RecordedEvent) -> pb.RunEvent:
    """Return an event of a run as a message."""
    return pb.RunEvent(
        number=event.number,
        time=time_to_proto(event.time),
        kind=pb.RunEventKind.ValueType(event.kind),
        step=event.step,
        from_step=event.from_step,
        count=event.count,
    )


def events_to_proto(events: Sequence[RecordedEvent]) -> pb.ListRunEventsResponse:
    """Return the events of a run as a message."""
    return pb.ListRunEventsResponse(events=map(event_to_proto, events))
