"""Machine code before it is needed, in parts: a plain run needs two of them, and others what they ask for.

Functions are compiled when they are first called, which takes seconds once per machine and version; later
starts load the machine code. Without this, the first observation that needs some would wait for the compiler
beyond its client's deadline, and all others with it.

    python -m mlrs_server.live.warmup PART ...      keep parts on disk, for a daemon that then loads them

A part is `PLAIN`, the kind of an architecture (its inference, and its replays), such a kind with `META`
behind it (its part in meta mode), or `RESCUE`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from threading import Thread

import numpy as np

from mlrs_core.adapting import AdaptivePolicy
from mlrs_core.config import MetaConfig, RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.kernel_cache import NotKeptError, is_kept, loading_only
from mlrs_core.networks import ARCHITECTURES, Architecture, Weights
from mlrs_core.policy import NO_SIGNALS, Policy, no_networks, table_of
from mlrs_core.rescue import RescuingPolicy
from mlrs_core.schedules.kernel import schedule_policy
from mlrs_server.domain.gradients import ElementType, Piece, RunningDot
from mlrs_server.domain.ledger import common_group
from mlrs_server.domain.observations import (
    ANSWERED,
    ENTRY,
    Entries,
    count_rows,
    find_answers,
    sort_by_row,
)
from mlrs_server.domain.run_snapshot import first_snapshot
from mlrs_server.failpoints import reach
from mlrs_server.live.arrays import RunGroup
from mlrs_server.storage import Observations
from mlrs_server.storage.chunks import pack_chunk, unpack_steps

PLAIN = "plain"
"""What every run needs: the exactly-once rules, the records of runs, and schedules."""
META = "-meta"
RESCUE = "rescue"


def part_of(kind: str, *, in_meta_mode: bool = False) -> str:
    """Return the part of an architecture, frozen or in meta mode."""
    return kind + META * in_meta_mode


def all_parts() -> tuple[str, ...]:
    """Return every part, those of a plain run first."""
    return (PLAIN, *ARCHITECTURES, RESCUE, *(kind + META for kind in ARCHITECTURES))


def is_loaded(parts: Iterable[str]) -> bool:
    """Load parts from disk; return whether all of them were there. Nothing is compiled."""
    try:
        with loading_only():
            warm_up(parts)
    except NotKeptError:
        return False
    return True


def warm_up(parts: Iterable[str]) -> None:
    """Load parts, or compile what is not on disk."""
    for part in parts:
        if part == PLAIN:
            _warm_up_plain()
        elif part == RESCUE:
            _answer(RescuingPolicy(_schedule()))
        elif part.endswith(META):
            adaptive = adaptive_policy(part.removesuffix(META))
            _adapt(adaptive)
            _answer(adaptive)
            _align()
        else:
            _answer(frozen_policy(part))


def _warm_up_plain() -> None:
    common_group(np.zeros(1, ENTRY))
    _answer(_schedule())
    answers, one = np.zeros(1, ANSWERED), np.zeros(1, np.int64)
    count_rows(answers, one.copy())
    sort_by_row(answers, one.copy(), np.zeros(1, ANSWERED))
    find_answers(answers, one, one, one.copy(), one.copy())
    unpack_steps([(0, 0, pack_chunk(Observations(np.ones(1), np.ones(1), np.ones(1, np.uint8))))], one, one)


def _answer(policy: Policy) -> None:
    """Answer an observation, and once more as replays do."""
    for one in (policy, policy.background()):
        group = RunGroup(0, "", one)
        row = group.reserve()
        group.put(row, "", 0, RunConfig(), first_snapshot(one))
        group.answer(Entries.of_one(int(group.records["handle"][row]), 0, 1.0))


def _adapt(policy: AdaptivePolicy) -> None:
    """Apply a meta update to a run's network, after enough steps that its learning rate depends on it."""
    states, networks, table = policy.init_state(1), no_networks(policy, 1), table_of([RunConfig()])
    steps = np.arange(20)
    policy.advance(
        states, networks, table, np.zeros(20, np.int64), steps, np.ones(20), NO_SIGNALS, np.empty(20)
    )
    policy.adapt(states, networks, table, 0, 19, 1.0)


def _align() -> None:
    """Multiply gradients as a message has them, and as they are once converted to single precision."""
    dot = RunningDot()
    for kind in (ElementType.FLOAT32, ElementType.FLOAT16):
        dot.add(Piece(kind, bytes(kind.width), bytes(kind.width)))


def _schedule() -> Policy:
    return schedule_policy(ScheduleSpec(ScheduleKind.CONSTANT))


def frozen_policy(kind: str) -> Policy:
    """Return a policy of an architecture, with weights of 0."""
    from mlrs_core.networks.serving import policy_of

    spec, weights = _network(kind)
    return policy_of(spec, [weights])


def adaptive_policy(kind: str) -> AdaptivePolicy:
    """Return a policy of an architecture in meta mode, with weights of 0."""
    from mlrs_core.networks.serving import adaptive_policy_of

    spec, weights = _network(kind)
    return adaptive_policy_of(spec, [weights], MetaConfig())


def _network(kind: str) -> tuple[Architecture, Weights]:
    spec = ARCHITECTURES[kind]()
    return spec, {name: np.zeros(shape, np.float32) for name, shape in spec.weight_shapes().items()}


def main(parts: list[str]) -> int:
    """Keep parts on disk; return 1 where that does not work.

    Standard input is the daemon's: at its end, nobody waits for the parts any more.
    """
    Thread(target=_end_with_the_daemon, daemon=True).start()
    reach("kernels.make")
    warm_up(parts)
    return 0 if is_kept() else 1


def _end_with_the_daemon() -> None:
    while os.read(sys.stdin.fileno(), 1):  # unbuffered: a lock held at the exit would end that badly
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
