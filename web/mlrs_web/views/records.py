"""Records in buckets, and samples of records, as plain JSON."""

from __future__ import annotations

from typing import Any

from mlrs.types import RecordSample, RecordSummary
from mlrs_web.views.plain import figures, plain
from mlrs_web.views.runs import run


def record(summary: RecordSummary) -> dict[str, Any]:
    """Return a part of a record in buckets."""
    return {
        "run": run(summary.run),
        "first_step": summary.first_step,
        "steps_per_bucket": summary.steps_per_bucket,
        "end_step": summary.end_step,
        "loss": {
            "min": figures(summary.min_losses),
            "max": figures(summary.max_losses),
            "mean": figures(summary.mean_losses),
        },
        "lr": {
            "min": figures(summary.min_learning_rates),
            "max": figures(summary.max_learning_rates),
            "mean": figures(summary.mean_learning_rates),
        },
        "held": list(summary.held),
        "signals": plain(summary.signals),
        "validations": [{"step": each.step, "loss": plain(each.loss)} for each in summary.validations],
        "updates": plain(summary.updates),
        "restores": list(summary.restores),
        "restored": list(summary.restored),
        "cursor": summary.cursor,
        "has_more": summary.has_more,
    }


def sample(few: RecordSample) -> dict[str, Any]:
    """Return a few steps of a record."""
    return {
        "steps": list(few.steps),
        "losses": figures(few.losses),
        "learning_rates": figures(few.learning_rates),
    }
