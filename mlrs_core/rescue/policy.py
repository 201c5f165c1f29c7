"""Any policy with the two detectors around it: its runs raise alarms, and their rates are lowered at each."""

from __future__ import annotations

from typing import final

import numpy as np
import numpy.typing as npt

from mlrs_core.compiled import compiled
from mlrs_core.policy import COLUMNS, Floats, Networks, Policy, Rows, RunTable, Signals, States, Steps
from mlrs_core.rescue import overfitting
from mlrs_core.rescue.detector import RESCUES, take_in
from mlrs_core.rescue.detector import SIZE as BLOW_UP_SIZE

SIZE = BLOW_UP_SIZE + overfitting.SIZE
"""Floats of a run behind the other policy's: of the detector of blow-ups, then of that of overfitting."""

Alarms = npt.NDArray[np.uint8]
"""Whether entries raise an alarm, (n,): 1 or 0."""
NO_ALARMS: Alarms = np.empty(0, np.uint8)
"""For callers that do not ask."""
_RESTORED = COLUMNS.index("restored")
_VALIDATION = COLUMNS.index("validation_loss")


@final
class RescuingPolicy:
    """`Policy` of another policy, whose learning rates are lowered after alarms.

    They are times 2**-k after k alarms of the detector of blow-ups, and times what `overfitting.share` says.
    A state is the other policy's, and the `SIZE` floats of the detectors. Without a blow-up and without
    validation losses, learning rates are those of the other policy to the bit.

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

        The detectors hold other threads back, for a fraction of a microsecond a step.
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


def share_of(state: States, step: int, horizon: int) -> float:
    """Return what the learning rates of a run are multiplied by at a step.

    Args:
        state: of the run, (state_size,).
        step: from 0.
        horizon: the run's; -1: unknown.
    """
    memory = state[len(state) - SIZE :]
    halved = 2.0 ** -int(memory[RESCUES])
    return float(halved * overfitting.share(memory[BLOW_UP_SIZE:], step, horizon))


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
        row, loss, step, lr = rows[entry], losses[entry], steps[entry], lrs[entry]
        horizon = table[row].horizon
        own = states[row, states.shape[1] - SIZE :]
        memory, other = own[:BLOW_UP_SIZE], own[BLOW_UP_SIZE:]
        restored = len(signals) > 0 and signals[entry, _RESTORED] > 0.0
        alarm = take_in(memory, loss, restored, step, horizon)
        if restored:
            overfitting.went_back(other, step, horizon)
        overfitting.note(other, loss)
        if len(signals) > 0 and overfitting.validated(other, signals[entry, _VALIDATION], step, horizon):
            alarm = True
        if len(alarms) > 0:
            alarms[entry] = alarm
        lrs[entry] = lr * (2.0 ** -memory[RESCUES] * overfitting.share(other, step, horizon))
