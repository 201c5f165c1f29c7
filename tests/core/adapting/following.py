"""Runs that go on learning, taken through observations and updates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlrs_core.adapting import Adapted, AdaptivePolicy, MetaOutcome
from mlrs_core.config import RunConfig
from tests.core.runs import Runs

HORIZON = RunConfig(horizon=60, num_classes=10)
EVERY = 3
MOVED = {MetaOutcome.APPLIED, MetaOutcome.CLIPPED, MetaOutcome.SCALED, MetaOutcome.CLIPPED_AND_SCALED}


@dataclass
class Event:
    """An observation of a run, with the update of its step, if it has one."""

    loss: float
    alignment: float | None = None


def adapt(runs: Runs, row: int, step: int, alignment: float) -> Adapted:
    """Make an update of a run."""
    policy: AdaptivePolicy = runs.policy  # type: ignore[assignment]
    return policy.adapt(runs.states, runs.networks, runs.table, row, step, alignment)


def follow(runs: Runs, row: int, events: Sequence[Event], first: int = 0) -> list[float]:
    """Take a run through some events; return its advice and the results of its updates."""
    advised = []
    for step, event in enumerate(events, first):
        advised.append(float(runs.advise(step, [event.loss], np.array([row]))[0]))
        if event.alignment is not None:
            done = adapt(runs, row, step, event.alignment)
            advised += [float(done.outcome), done.log_change, 0.0 if math.isnan(done.lr) else done.lr]
    return advised


def bits(runs: Runs, row: int, advised: Sequence[float]) -> bytes:
    """Return all of a run as bytes."""
    return np.array(advised).tobytes() + runs.states[row].tobytes() + runs.networks[row].tobytes()


def eventful(rng: np.random.Generator, n: int) -> list[Event]:
    """Return n events with updates, bad losses and a blow-up now and then."""
    losses = rng.exponential(2.0, n) * np.where(rng.random(n) < 0.05, 50.0, 1.0)
    losses[rng.random(n) < 0.05] = np.nan
    return [
        Event(float(loss), float(rng.normal()) if step % EVERY == 0 else None)
        for step, loss in enumerate(losses)
    ]
