"""Conversion of the records of runs."""

from __future__ import annotations

import numpy as np

from mlrs_proto import v1 as pb
from mlrs_server.domain.ledger import REASON, RESTORE
from mlrs_server.live.views import RunView
from mlrs_server.rpc.convert.extras import restored_to_proto, signals_to_proto, validations_to_proto
from mlrs_server.rpc.convert.meta import meta_record_to_proto
from mlrs_server.rpc.convert.runs import run_to_proto
from mlrs_server.storage import Observations


def record_to_proto(view: RunView, first_step: int, record: Observations) -> pb.WatchRunResponse:
    """Return consecutive steps of a run's record as a message."""
    return pb.WatchRunResponse(
        run=run_to_proto(view),
        first_step=first_step,
        losses=record.losses.tolist(),
        learning_rates=record.lrs.tolist(),
        reasons=(record.reasons & REASON).tolist(),
        updates=map(meta_record_to_proto, record.updates),
        signals=signals_to_proto(record.extras),
        validations=validations_to_proto(record.extras),
        restores=np.flatnonzero(record.reasons & RESTORE).tolist(),
        restored=restored_to_proto(record.extras),
    )
