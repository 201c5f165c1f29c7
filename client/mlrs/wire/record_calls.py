"""The unary calls about the records of runs as values."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Mapping

from mlrs.protocol.routing import Call
from mlrs.values import arguments as check
from mlrs.values.checks import whole, wrong
from mlrs.values.record_types import RecordSample, RecordSummary, RunEvent, RunEventKind
from mlrs.values.signals import SIGNAL_NAMES, ValidationRecord
from mlrs.wire.convert import run_from_proto
from mlrs.wire.meta_convert import record_from_proto
from mlrs_proto import v1 as pb

MAX_BUCKETS = 4096
"""The most buckets that the contract takes."""
MAX_SAMPLES = 128
"""The most steps of a run that the contract samples."""
_KINDS: dict[pb.RunEventKind.ValueType, RunEventKind] = {
    pb.RUN_EVENT_KIND_RESUMED: RunEventKind.RESUMED,
    pb.RUN_EVENT_KIND_REWOUND: RunEventKind.REWOUND,
    pb.RUN_EVENT_KIND_TAKEN_OVER: RunEventKind.TAKEN_OVER,
    pb.RUN_EVENT_KIND_RESIZED: RunEventKind.RESIZED,
    pb.RUN_EVENT_KIND_FALLBACK: RunEventKind.FALLBACK,
}


def summarize(
    run_id: object, from_step: object, to_step: object, max_buckets: object, cursor: object
) -> Call[RecordSummary]:
    """Read a part of a run's record in buckets."""
    if not isinstance(cursor, str):
        raise wrong("cursor", "must be the cursor of a summary of this run, or empty", cursor)
    request = pb.SummarizeRecordRequest(
        run_id=check.run_id(run_id),
        from_step=check.step(from_step, "from_step"),
        to_step=None if to_step is None else check.step(to_step, "to_step"),
        max_buckets=whole("max_buckets", max_buckets, low=1, high=MAX_BUCKETS),
        page_token=cursor,
    )
    return Call("SummarizeRecord", request, _summary_from_proto)


def sample(run_ids: object, samples: object) -> Call[dict[str, RecordSample]]:
    """Read a few steps of many runs."""
    if isinstance(run_ids, (str, bytes)) or not isinstance(run_ids, Iterable):
        raise wrong("ids", "must be a list of run ids", run_ids)
    request = pb.SampleRecordsRequest(
        run_ids=[check.run_id(run_id, "ids") for run_id in run_ids],
        samples=whole("samples", samples, low=2, high=MAX_SAMPLES),
    )
    return Call("SampleRecords", request, _samples_from_proto)


def list_events(run_id: object, after: object) -> Call[tuple[RunEvent, ...]]:
    """Read the events of a run beyond a number."""
    request = pb.ListRunEventsRequest(run_id=check.run_id(run_id), after=check.step(after, "after"))
    return Call("ListRunEvents", request, lambda response: tuple(map(_event_from_proto, response.events)))


def _summary_from_proto(message: pb.SummarizeRecordResponse) -> RecordSummary:
    validations, width = message.validations, message.steps_per_bucket
    return RecordSummary(
        run=run_from_proto(message.run),
        first_step=message.first_step,
        steps_per_bucket=width,
        end_step=message.end_step,
        min_losses=tuple(message.min_losses),
        max_losses=tuple(message.max_losses),
        mean_losses=tuple(message.mean_losses),
        min_learning_rates=tuple(message.min_learning_rates),
        max_learning_rates=tuple(message.max_learning_rates),
        mean_learning_rates=tuple(message.mean_learning_rates),
        held=tuple(message.held),
        signals=_signals_from_proto(message.signals),
        validations=tuple(
            ValidationRecord(step=step, loss=loss, observed_step=message.first_step + entry * width)
            for entry, step, loss in zip(
                validations.entries, validations.steps, validations.losses, strict=True
            )
        ),
        updates=tuple(map(record_from_proto, message.updates)),
        restores=tuple(message.restores),
        restored=tuple(message.restored),
        has_more=message.has_more,
        cursor=message.next_page_token,
    )


def _signals_from_proto(message: pb.SignalColumns) -> Mapping[str, tuple[tuple[int, float], ...]]:
    """Return the signals that came, each with the buckets that have it."""
    columns = {name: getattr(message, name) for name in SIGNAL_NAMES}
    return {
        name: tuple(
            (entry, value)
            for entry, value in zip(message.entries, column, strict=True)
            if not math.isnan(value)
        )
        for name, column in columns.items()
        if column
    }


def _samples_from_proto(message: pb.SampleRecordsResponse) -> dict[str, RecordSample]:
    return {
        one.run_id: RecordSample(
            steps=tuple(one.steps), losses=tuple(one.losses), learning_rates=tuple(one.learning_rates)
        )
        for one in message.samples
    }


def _event_from_proto(message: pb.RunEvent) -> RunEvent:
    return RunEvent(
        number=message.number,
        time=message.time.ToDatetime(tzinfo=dt.UTC),
        kind=_KINDS.get(message.kind, RunEventKind.OTHER),
        step=message.step,
        from_step=message.from_step if message.HasField("from_step") else None,
        count=message.count if message.HasField("count") else None,
    )
