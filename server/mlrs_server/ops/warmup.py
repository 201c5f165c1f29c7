"""Compilation before the first run: it takes seconds once per machine; later starts load the machine code.

Functions are compiled when they are first called. Without this, the first observation on a new machine would
wait for the compiler beyond its client's deadline, and all others with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import structlog

from mlrs_core.adapting import AdaptivePolicy
from mlrs_core.advise import step
from mlrs_core.config import MetaConfig, RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.networks import ARCHITECTURES, Architecture, Weights
from mlrs_core.networks.serving import adaptive_policy_of, policy_of
from mlrs_core.policy import NO_SIGNALS, Policy, RunColumns, no_networks, table_of
from mlrs_core.rescue import RescuingPolicy
from mlrs_core.schedules.kernel import schedule_policy
from mlrs_server.domain.ledger import common_group
from mlrs_server.domain.observations import ANSWERED, ENTRY, count_rows, find_answers, sort_by_row
from mlrs_server.live.replay import Replay
from mlrs_server.storage import Observations
from mlrs_server.storage.chunks import pack_chunk, unpack_steps

log = structlog.get_logger()


def warm_up() -> None:
    """Compile the functions that answer and replay observations, for each architecture and for schedules."""
    began = time.monotonic()
    common_group(np.zeros(1, ENTRY))
    for policy in _policies():
        step(policy, policy.init_state(1), np.zeros(1, np.int64), np.ones(1), RunColumns.of([RunConfig()]))
        Replay(policy, RunConfig()).feed(np.ones(1))
        Replay(RescuingPolicy(policy), RunConfig(rescue=True)).feed(np.ones(1))
    for adaptive in _adaptive_policies():
        _adapt(adaptive)
        Replay(adaptive, RunConfig()).feed(np.ones(1))
    answers, one = np.zeros(1, ANSWERED), np.zeros(1, np.int64)
    count_rows(answers, one.copy())
    sort_by_row(answers, one.copy(), np.zeros(1, ANSWERED))
    find_answers(answers, one, one, one.copy(), one.copy())
    unpack_steps([(0, 0, pack_chunk(Observations(np.ones(1), np.ones(1), np.ones(1, np.uint8))))], one, one)
    log.info("kernels_ready", seconds=round(time.monotonic() - began, 2))


def _adapt(policy: AdaptivePolicy) -> None:
    """Apply a meta update to a run's network, after enough steps that its learning rate depends on it."""
    states, networks, table = policy.init_state(1), no_networks(policy, 1), table_of([RunConfig()])
    steps = np.arange(20)
    policy.advance(
        states, networks, table, np.zeros(20, np.int64), steps, np.ones(20), NO_SIGNALS, np.empty(20)
    )
    policy.adapt(states, networks, table, 0, 19, 1.0)


def _policies() -> Iterator[Policy]:
    for spec, weights in _networks():
        yield policy_of(spec, [weights])
    yield schedule_policy(ScheduleSpec(ScheduleKind.CONSTANT))


def _adaptive_policies() -> Iterator[AdaptivePolicy]:
    for spec, weights in _networks():
        yield adaptive_policy_of(spec, [weights], MetaConfig())


def _networks() -> Iterator[tuple[Architecture, Weights]]:
    for architecture in ARCHITECTURES.values():
        spec = architecture()
        yield spec, {name: np.zeros(shape, np.float32) for name, shape in spec.weight_shapes().items()}
