"""The policy of meta mode, for any architecture: updates under guard rails."""

from __future__ import annotations

import math
from copy import copy
from typing import final

import numpy as np

from mlrs_core.adapting.adam import direction, put
from mlrs_core.adapting.guard_rails import begin_trial, clipped
from mlrs_core.adapting.learner import Learner
from mlrs_core.adapting.protocol import MAX_ALIGNMENT, Adapted, MetaCounters, MetaOutcome, Vector
from mlrs_core.adapting.state_layout import (
    ADAPTED,
    APPLIED,
    CHANGE,
    CLIPPED,
    FRESH,
    RING,
    SCALARS,
    SCALED,
    UPDATES,
    counters_of,
)
from mlrs_core.config import MetaConfig, MetaOrder
from mlrs_core.errors import InvalidFieldError
from mlrs_core.policy import Floats, Networks, Rows, RunTable, Signals, States, Steps

TRIES = 12
"""An update is scaled down this often at most; one that then moves the learning rate too far is not made."""
_OUTCOMES = {
    (False, False): MetaOutcome.APPLIED,
    (True, False): MetaOutcome.CLIPPED,
    (False, True): MetaOutcome.SCALED,
    (True, True): MetaOutcome.CLIPPED_AND_SCALED,
}


@final
class AdaptiveKernel:
    """`AdaptivePolicy` of an architecture.

    A state is the frozen policy's, traces, and the numbers of `state_layout`; a network is weights,
    Adam's two moments and the last good weights, each (K * P,).
    """

    def __init__(self, learner: Learner, meta: MetaConfig) -> None:
        """Let a network learn by some settings; what they lack has its default."""
        resolved = meta.resolved()
        self._learner = learner
        self._again = resolved.order is MetaOrder.BEFORE_STEP
        self._learning_rate = float(resolved.learning_rate or 0.0)
        self._weight_decay = float(resolved.weight_decay or 0.0)
        self._max_change = float(resolved.max_change or 0.0)
        self._clip = float(resolved.clip or 0.0)
        self._blow_up = float(resolved.blow_up or 0.0)
        self._block = learner.shared.size
        self._width = learner.shared.shape[1]
        self._scalars = learner.frozen_size + (learner.traces + RING) * learner.trace_size

    @property
    def state_size(self) -> int:
        """The length of a run's state."""
        return self._scalars + SCALARS + len(self._learner.shared)

    @property
    def counters_at(self) -> int:
        """Where in a run's state its counters begin, for `counters_of`."""
        return self._scalars

    @property
    def network_size(self) -> int:
        """The length of a run's own network."""
        return 4 * self._block

    def init_state(self, n: int) -> States:
        """Return the states of n runs before their first step, (n, state_size) float32."""
        states = np.zeros((n, self.state_size), np.float32)
        states[:, : self._learner.frozen_size] = self._learner.init_frozen(n)
        return states

    def first_network(self) -> Vector:
        """Return the network of a run before its first update, (network_size,) float32."""
        weights, nothing = self._learner.shared.ravel(), np.zeros(2 * self._block, np.float32)
        return np.concatenate([weights, nothing, weights])

    def background(self) -> AdaptiveKernel:
        """Return the same policy for long work on another thread; see `Policy.background`."""
        twin = copy(self)
        twin._learner = self._learner.background()  # noqa: SLF001  # a copy of itself
        return twin

    def advance(
        self,
        states: States,
        networks: Networks,
        table: RunTable,
        rows: Rows,
        steps: Steps,
        losses: Floats,
        signals: Signals,
        lrs: Floats,
    ) -> None:
        """Advance runs by a step for each entry; see `Policy.advance`."""
        self._learner.advance(states, networks, table, rows, steps, losses, signals, lrs, self._blow_up)

    def adapt(
        self, states: States, networks: Networks, table: RunTable, row: int, step: int, alignment: float
    ) -> Adapted:
        """Make one meta update of one run, in place; see `AdaptivePolicy.adapt`."""
        del step  # what it saw is in the state
        if not abs(alignment) <= MAX_ALIGNMENT:
            raise InvalidFieldError(
                "alignment", f"must be a number within ±{MAX_ALIGNMENT:g}, is {alignment}"
            )
        state, network = states[row], networks[row]
        scalars = state[self._scalars :]
        if scalars[UPDATES] == 0:
            network[:] = self.first_network()
        scalars[UPDATES] += 1
        scalars[ADAPTED], scalars[CHANGE] = 1.0, 0.0
        trace, snapshot, lr = self._learner.find(state, network, table, row)
        lr *= table[row]["factor"]
        inside = table[row]["min_lr"] <= lr <= table[row]["max_lr"]
        if trace < 0 or not inside or alignment == 0:
            return Adapted(MetaOutcome.IDLE, math.nan, 0.0)
        counted = clipped(scalars, alignment, self._clip)
        move = self._direction(state, network, table, row, (trace, snapshot), -counted * lr)
        if move is None:
            return Adapted(MetaOutcome.IDLE, math.nan, 0.0)
        share = self._move_within(state, network, table, row, snapshot, move)
        outcome = _OUTCOMES[counted != alignment, share < 1]
        scalars[CLIPPED] += counted != alignment
        scalars[SCALED] += share < 1
        lr = self._learner.again(state, table, row, network) if self._again and scalars[FRESH] else math.nan
        return Adapted(outcome, lr, float(scalars[CHANGE]))

    def _direction(
        self,
        state: Vector,
        network: Vector,
        table: RunTable,
        row: int,
        source: tuple[int, int],
        factor: float,
    ) -> Floats | None:
        """Return how far Adam moves the weights of a snapshot, (P,); `None` if it does not.

        Args:
            state: the state of the run; Adam's steps are counted in it, and the trace is stored.
            network: the network of the run; its moments move.
            table: see `adapt`.
            row: see `adapt`.
            source: the trace that the learning rate comes from, and the snapshot.
            factor: times the gradient of the log learning rate, this is that of the validation loss.
        """
        scalars, traces, (trace, snapshot) = state[self._scalars :], self._traces(state), source
        weights, first, second = self._blocks(network, snapshot)
        gradient, move = np.empty(self._width), np.empty(self._width)
        self._learner.slope(traces[trace], table, row, weights, gradient)
        count = int(scalars[SCALARS + snapshot]) + 1
        rate, decay = self._learning_rate, self._weight_decay
        if not direction(weights, first, second, gradient, factor, count, rate, decay, move):
            return None
        begin_trial(scalars)
        scalars[SCALARS + snapshot] = count
        traces[self._learner.traces + int(scalars[APPLIED]) % RING] = traces[trace]
        scalars[APPLIED] += 1
        return move

    def _move_within(
        self, state: Vector, network: Vector, table: RunTable, row: int, snapshot: int, move: Floats
    ) -> float:
        """Move weights as far as the learning rate at the last traces may; return the share of the way."""
        scalars = state[self._scalars :]
        applied = int(scalars[APPLIED])
        kept = self._traces(state)[self._learner.traces :][: min(applied, RING)]
        levels, after = np.empty(len(kept)), np.empty(len(kept))
        weights = self._blocks(network, snapshot)[0]
        before = weights.copy()
        self._learner.levels(kept, table, row, network, levels)
        share = 1.0
        for _ in range(TRIES):
            put(weights, before, move, share)
            self._learner.levels(kept, table, row, network, after)
            farthest = float(np.abs(after - levels).max())
            if farthest <= self._max_change:
                break
            share *= min(max(0.95 * self._max_change / farthest, 0.01), 0.8)
        else:
            share, weights[:], after[:] = 0.0, before, levels
        newest = (applied - 1) % RING
        scalars[CHANGE] = after[newest] - levels[newest]
        return share

    def _traces(self, state: Vector) -> States:
        start = self._learner.frozen_size
        return state[start : self._scalars].reshape(-1, self._learner.trace_size)

    def _blocks(self, network: Vector, snapshot: int) -> tuple[Vector, Vector, Vector]:
        """Return the weights and moments of a snapshot."""
        start = snapshot * self._width
        weights, first, second = (
            network[block : block + self._width]
            for block in range(start, start + 3 * self._block, self._block)
        )
        return weights, first, second

    def meta_counters(self, state: Vector) -> MetaCounters:
        """Return what became of the updates of the run with this state, (state_size,)."""
        return counters_of(state, self._scalars)

    def weights_of(self, network: Vector) -> tuple[dict[str, Vector], ...]:
        """Return the weights in a network, (network_size,), by snapshot and name."""
        shape = self._learner.shared.shape
        return tuple(self._learner.unpacked(row) for row in network[: self._block].reshape(shape))
