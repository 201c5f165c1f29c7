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
        size = self.inner.state_size  # its kernels want states of this width in one piece
        distinct = rows[:1] if len(rows) <= 1 or (rows == rows[0]).all() else np.unique(rows)
        if len(distinct) > 1 and not self.network_size:
            own, where = states[distinct, :size], np.searchsorted(distinct, rows)
            inputs = (where, steps, losses, signals, lrs)
            self.inner.advance(own, networks[distinct], table[distinct], *inputs)
            states[distinct, :size] = own
        else:  # a row is in one piece as it is; networks are large, and those never written to take no memory
            for row in distinct:
                which = slice(None) if len(distinct) == 1 else np.flatnonzero(rows == row)
                one, rates = slice(row, row + 1), lrs[which]
                told = signals[which] if len(signals) else signals
                inputs = (np.zeros(len(rates), np.int64), steps[which], losses[which], told, rates)
                self.inner.advance(states[one, :size], networks[one], table[one], *inputs)
                lrs[which] = rates
        _watch(states, table, rows, steps, losses, signals, lrs, alarms)


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
