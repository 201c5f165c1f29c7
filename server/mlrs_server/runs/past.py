"""Runs as the memory of their tasks has them: what they were advised under, and how they ended."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import structlog

from mlrs_core.config import RunConfig
from mlrs_core.memory import Ending, PastRun
from mlrs_server.domain.extras import LOSS
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.errors import DamagedError, record_lacking
from mlrs_server.live.policies import model_ref
from mlrs_server.live.replay import PAGE, PAGE_CHUNKS
from mlrs_server.storage import NewRun, Store, StoredRun
from mlrs_server.tenancy import bare

log = structlog.get_logger()

TRAINING_SHARE = 1 / 20
"""The share of a run whose mean training loss says how it ended."""
VALIDATION_SHARE = 1 / 4
"""A validation loss counts as the end of a run if it came with this last share of the steps."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a caller says of how a run ended."""

    metric: float | None = None
    """Finite, if given."""
    higher_is_better: bool = False
    validation_loss: float | None = None
    """The newest one, where no observation has carried it."""


NOTHING_SAID = Outcome()


def past_run_of(run: NewRun, ending: Ending, *, at: float = 0.0) -> PastRun:
    """Return a run as the memory has it, without how well it ended.

    Args:
        run: the run, which has a horizon.
        ending: how it ended.
        at: when, in seconds since the epoch.
    """
    config = run.config.after_search()
    schedule, horizon = config.schedule, run.config.horizon
    assert horizon is not None  # noqa: S101  # runs without one take no part in the memory
    return PastRun(
        run_id=bare(run.run_id),
        ending=ending,
        policy=model_ref(run) if schedule is None else schedule.kind.spelling,
        learning_rate=None if schedule is None else _bounded(schedule.base_lr, config),
        lr_offset=config.lr_offset or 0.0,
        searched=run.config.found is not None,
        optimizer=config.optimizer,
        momentum=config.momentum,
        horizon=horizon,
        batch_size=config.batch_size,
        recalled=config.recalled,
        time=at,
    )


def ended(store: Store, run: StoredRun, status: RunStatus, outcome: Outcome, *, at: float) -> PastRun:
    """Return how a run ended, all of whose record is stored; on the store's thread.

    Args:
        store: has its record.
        run: the run.
        status: its status before it was finished.
        outcome: what the caller says of it.
        at: the time, in seconds since the epoch.

    A damaged record says nothing of how well the run ended.

    Raises:
        AdvisorError: the store fails.
    """
    steps, config = run.snapshot.next_step, run.config.after_search()
    try:
        training, validation = _measured(store, run, steps)
    except DamagedError as error:
        log.warning("run_unreadable", run_id=run.run_id, problem=str(error))
        training, validation = None, None
    is_bad = bool(steps) and not math.isfinite(run.snapshot.last_loss) and outcome.metric is None
    if status == RunStatus.DIVERGED or is_bad:
        ending = Ending.DIVERGED
    elif steps >= (config.horizon or 0):
        ending = Ending.REACHED
    else:
        ending = Ending.STOPPED
    told = outcome.validation_loss
    return replace(
        past_run_of(run, ending, at=at),
        metric=outcome.metric,
        higher_is_better=outcome.higher_is_better,
        validation_loss=told if told is not None and math.isfinite(told) else validation,
        training_loss=training,
    )


def _bounded(learning_rate: float | None, config: RunConfig) -> float | None:
    """Return a learning rate as it was advised."""
    if learning_rate is None:
        return None
    return min(max(learning_rate, config.min_lr or 0.0), math.inf if config.max_lr is None else config.max_lr)


def _measured(store: Store, run: StoredRun, steps: int) -> tuple[float | None, float | None]:
    """Return the mean training loss at the end of a record, and its newest validation loss near the end."""
    last = steps - max(math.ceil(steps * TRAINING_SHARE), 1)
    step, losses, validation = steps - math.ceil(steps * VALIDATION_SHARE), list[np.ndarray](), None
    while step < steps:
        left = steps - step
        record = store.read(run.key, step, min(PAGE, left), most_chunks=PAGE_CHUNKS).cut(0, left)
        if not len(record):
            raise record_lacking(run.run_id, step)  # or another replica has rewound or deleted it
        losses.append(record.losses[max(last - step, 0) :])
        told = record.extras.values[:, LOSS]
        told = told[np.isfinite(told)]
        validation = float(told[-1]) if len(told) else validation
        step += len(record)
    finite = np.concatenate(losses) if losses else np.empty(0)
    finite = finite[np.isfinite(finite)]
    return (float((finite / len(finite)).sum()) if len(finite) else None), validation  # the sum may overflow
