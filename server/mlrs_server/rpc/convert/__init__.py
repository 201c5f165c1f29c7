"""Conversion of messages to the daemon's types (`..._from_proto`) and back (`..._to_proto`), by subject."""

from __future__ import annotations

from mlrs_server.rpc.convert.advice import (
    advice_to_proto,
    columns_to_proto,
    entries_from_proto,
)
from mlrs_server.rpc.convert.configs import config_from_proto, config_to_proto
from mlrs_server.rpc.convert.extras import extras_of_one
from mlrs_server.rpc.convert.lists import (
    list_position_from_proto,
    page_of,
    page_size_from_proto,
    page_token_to_proto,
    status_from_proto,
    traits_from_proto,
)
from mlrs_server.rpc.convert.meta import (
    applied_to_proto,
    check_updates,
    gradients_header_from_proto,
    pieces_from_proto,
    results_to_proto,
    update_from_proto,
)
from mlrs_server.rpc.convert.models import (
    alias_change_to_proto,
    chunk_from_proto,
    import_header_from_proto,
    model_to_proto,
    promoted_to_proto,
    promotion_from_proto,
)
from mlrs_server.rpc.convert.records import record_to_proto
from mlrs_server.rpc.convert.runs import (
    feeder_from_metadata,
    metric_from_proto,
    note_change_from_proto,
    opened_to_proto,
    opening_from_proto,
    outcome_from_proto,
    run_to_proto,
    step_from_proto,
)
from mlrs_server.rpc.convert.searches import report_from_proto, search_to_proto
from mlrs_server.rpc.convert.status import daemon_status_to_proto, duration_to_proto, rank_status_to_proto
from mlrs_server.rpc.convert.summaries import (
    events_to_proto,
    sample_to_proto,
    samples_from_proto,
    summary_from_proto,
    summary_to_proto,
)
from mlrs_server.rpc.convert.tasks import task_to_proto, view_to_proto

__all__ = [
    "advice_to_proto",
    "alias_change_to_proto",
    "applied_to_proto",
    "check_updates",
    "chunk_from_proto",
    "columns_to_proto",
    "config_from_proto",
    "config_to_proto",
    "daemon_status_to_proto",
    "duration_to_proto",
    "entries_from_proto",
    "events_to_proto",
    "extras_of_one",
    "feeder_from_metadata",
    "gradients_header_from_proto",
    "import_header_from_proto",
    "list_position_from_proto",
    "metric_from_proto",
    "model_to_proto",
    "note_change_from_proto",
    "opened_to_proto",
    "opening_from_proto",
    "outcome_from_proto",
    "page_of",
    "page_size_from_proto",
    "page_token_to_proto",
    "pieces_from_proto",
    "promoted_to_proto",
    "promotion_from_proto",
    "rank_status_to_proto",
    "record_to_proto",
    "report_from_proto",
    "results_to_proto",
    "run_to_proto",
    "sample_to_proto",
    "samples_from_proto",
    "search_to_proto",
    "status_from_proto",
    "step_from_proto",
    "summary_from_proto",
    "summary_to_proto",
    "task_to_proto",
    "traits_from_proto",
    "update_from_proto",
    "view_to_proto",
]
