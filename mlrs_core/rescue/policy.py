"""Any policy with the detector around it: its runs raise alarms, and their rates are halved at each."""

from __future__ import annotations

from typing import final

import numpy as np
import numpy.typing as npt

from mlrs_core.compiled import compiled
from mlrs_core.policy import COLUMNS, Floats, Networks, Policy, Rows, RunTable, Signals, States, Steps
from mlrs_core.rescue.detector import RESCUES, SIZE, take_in

Alarms = npt.NDArray[np.uint8]
"""Whether entries raise an alarm, (n,): 1 or 0."""
NO_ALARMS: Alarms = np.empty(0, np.uint8)
"""For callers that do not ask."""
_RESTORED = COLUMNS.index("restored")


@final
class RescuingPolicy:
    """`Policy` of another policy, whose learning rates are times 2**-k after k alarms.

    A state is the other policy's, and the `SIZE` floats of the detector. Without an alarm, learning rates are
    those of the other policy to the bit.

    Attributes:
        inner: the other policy; it may be one of meta mode.
    """

    def __init__(self, inner: Policy) -> None:
        self.inner = inner

    @property
    def state_size(self) -> int:
        """The length of a run's state."""
        return self.inner.state_size + SIZE

    @property
    def network_size(self) -> int:
        """The length of a run's own network: the other policy's."""
        return self.inner.network_size

    def init_state(self, n: int) -> States:
        """Return the states of n runs before their first step, (n, state_size) float32."""
        return np.concatenate([self.inner.init_state(n), np.zeros((n, SIZE), np.float32)], axis=1)

    def background(self) -> RescuingPolicy:
        """Return the same policy for long work on another thread; see `Policy.background`.

        The detector holds other threads back, for a tenth of a microsecond a step.
        """
        return RescuingPolicy(self.inner.background())

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
        alarms: Alarms = NO_ALARMS,
    ) -> None:
        """Advance runs by a step for each entry, and fill in alarms, (n,) if given; see `Policy.advance`.

        A loss that is not finite may raise an alarm, too, and moves nothing of the other policy.
        """
        self._advance_inner(states, networks, table, rows, steps, losses, signals, lrs)
        _watch(states, table, rows, steps, losses, signals, lrs, alarms)

    def _advance_inner(
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
        """Advance the other policy, whose kernels want states of their own width in one piece."""
        size = self.inner.state_size
        if len(rows) == 1 or (len(rows) and (rows == rows[0]).all()):  # one row is in one piece as it is
            one = slice(rows[0], rows[0] + 1)
            own, here = states[one, :size], np.zeros(len(rows), np.int64)
            self.inner.advance(own, networks[one], table[one], here, steps, losses, signals, lrs)
            return
        distinct, where = np.unique(rows, return_inverse=True)
        if self.network_size:  # networks are large, and those never written to take no memory: no copies
            for row in distinct:
                which = np.flatnonzero(rows == row)
                told, rates = signals[which] if len(signals) else signals, lrs[which]
                entries = (rows[which], steps[which], losses[which], told, rates)
                self._advance_inner(states, networks, table, *entries)
                lrs[which] = rates
            return
        own = states[distinct, :size]
        self.inner.advance(own, networks[distinct], table[distinct], where, steps, losses, signals, lrs)
        states[distinct, :size] = own


def share_of(state: States) -> float:
    """Return what the learning rates of a run with this state, (state_size,), are multiplied by."""
    return float(2.0 ** -int(state[RESCUES - SIZE]))


@compiled
def _watch(
    states: States,
    table: RunTable,
    rows: Rows,
    steps: Steps,
    losses: Floats,
    signals: Signals,
    lrs: Floats,
    alarms: Alarms,
) -> None:
    for entry in range(len(rows)):
        row = rows[entry]
        memory = states[row, states.shape[1] - SIZE :]
        restored = len(signals) > 0 and signals[entry, _RESTORED] > 0.0
        alarm = take_in(memory, losses[entry], restored, steps[entry], table[row].horizon)
        if len(alarms) > 0:
            alarms[entry] = alarm
        lrs[entry] *= 2.0 ** -memory[RESCUES]
