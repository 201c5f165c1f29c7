"""Proto messages to the daemon's types, and back. Messages stop here.

configs.py   what a run's config says
runs.py      runs, and what opens and lists them
records.py   the records of runs
advice.py    observations and advice
meta.py      meta updates, and gradients in pieces
models.py    models, their versions and aliases
"""

from __future__ import annotations

from mlrs_server.convert.advice import MAX_ENTRIES, advice_to, columns_to, entries_from, entry_error
from mlrs_server.convert.configs import config_from, config_to
from mlrs_server.convert.meta import (
    check_updates,
    gradients_header_from,
    made_to,
    pieces_from,
    results_to,
    update_from,
)
from mlrs_server.convert.models import (
    alias_change_to,
    chunk_from,
    import_header_from,
    model_to,
    promoted_to,
    promotion_from,
)
from mlrs_server.convert.records import record_to
from mlrs_server.convert.runs import (
    feeder_from,
    mode_from,
    opened_to,
    opening_from,
    page_size_from,
    page_token_to,
    place_from,
    run_to,
    status_from,
    step_from,
    time_to,
)

__all__ = [
    "MAX_ENTRIES",
    "advice_to",
    "alias_change_to",
    "check_updates",
    "chunk_from",
    "columns_to",
    "config_from",
    "config_to",
    "entries_from",
    "entry_error",
    "feeder_from",
    "gradients_header_from",
    "import_header_from",
    "made_to",
    "mode_from",
    "model_to",
    "opened_to",
    "opening_from",
    "page_size_from",
    "page_token_to",
    "pieces_from",
    "place_from",
    "promoted_to",
    "promotion_from",
    "record_to",
    "results_to",
    "run_to",
    "status_from",
    "step_from",
    "time_to",
    "update_from",
]
