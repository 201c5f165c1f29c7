"""Runs, and what belongs to one, as plain JSON."""

from __future__ import annotations

import math
from typing import Any

from mlrs.types import FinishedTrial, FoundRate, RankStatus, RunConfig, RunEvent, RunInfo, Search
from mlrs_web.views.plain import given, number, plain


def run(info: RunInfo) -> dict[str, Any]:
    """Return a run as lists show it."""
    config = info.config
    return {
        "id": info.id,
        "task": info.task,
        "status": plain(info.status),
        "model": config.model,
        "schedule": None if config.schedule is None else plain(config.schedule.kind),
        "next_step": info.next_step,
        "durable_step": info.durable_step,
        "horizon": config.horizon,
        "last_loss": number(info.last_loss),
        "last_learning_rate": number(info.last_learning_rate),
        "create_time": plain(info.create_time),
        "update_time": plain(info.update_time),
        "world_size": info.world_size or None,
        "optimizer": plain(config.optimizer),
        "batch_size": config.batch_size,
        "tags": dict(sorted(info.tags.items())),
        "note": info.note,
        "meta": plain(info.meta),
    }


def config(settings: RunConfig) -> dict[str, Any]:
    """Return the settings of a run that are given."""
    fields: dict[str, Any] = given(settings)
    return fields


def why(settings: RunConfig) -> str:
    """Return why the run begins as it does, in sentences."""
    said = []
    if settings.recalled is not None:
        said.append(f"By the memory of its task: {settings.recalled}.")
    else:
        said.append("The run takes no part in the memory of its task.")
    if settings.found is not None:
        said.append(_found(settings.found))
    return " ".join(said)


def search(found: Search) -> dict[str, Any]:
    """Return a search: its trials, and what it found or tries next."""
    rate = found.next if isinstance(found.next, FoundRate) else None
    return {
        "start": found.start,
        "attempt": found.attempt,
        "trials": [_trial(each) for each in found.trials],
        "found": plain(rate),
        "next": None if rate else plain(found.next),
        "why": _found(rate) if rate else "The search goes on.",
    }


def _trial(made: FinishedTrial) -> dict[str, Any]:
    status = "made" if math.isfinite(made.loss) else "diverged"
    return {**plain(made), "status": status if made.steps else "start"}


def _found(rate: FoundRate) -> str:
    charged = "they count as steps of the run" if rate.charged else "they do not count as steps of the run"
    return (
        f"A search found a learning rate of {rate.learning_rate:.3g}, within {rate.octaves:.1f} octaves, "
        f"by {rate.steps} updates; {charged}."
    )


def event(happened: RunEvent) -> dict[str, Any]:
    """Return an event of a run."""
    fields: dict[str, Any] = plain(happened)
    return fields


def ranks(status: RankStatus) -> dict[str, Any]:
    """Return what the ranks of a run do at present."""
    fields: dict[str, Any] = plain(status)
    return fields
