"""The schedules that watch the training loss: plateau and greedy.

The loss of a step moves the LR of that very step. At each step:

1. **Average.** a <- a + 2 / (N + 1) (loss - a), beginning at the first loss; N is `smoothing`.
2. **Improvement.** The step is good if a < best - threshold * |best|, and then best <- a. Otherwise it is
   bad. The count of good steps in a row, or of bad ones, grows; the other starts again at 0.
3. **Cooldown.** For `cooldown` steps after a reduction, bad steps do not count; in the warmup, none does.
4. **Move.** More than `patience` bad steps in a row multiply the LR by `factor`. Under greedy, more than
   `patience` good ones in a row divide it by that. The count starts again.

**plateau** is `torch.optim.lr_scheduler.ReduceLROnPlateau` in its relative mode, with eps = 0. That one is
called once an epoch; here every step is a call, so the defaults let a hundredth of the horizon (100 steps
where it is unknown) stand for an epoch: N is that, and the patience is ten of it. A threshold relative to
|best| is torch's for positive losses, and means the same for negative ones. The LR stays within
[`final_lr`, 1] times the base.

**greedy** is Subramanian & Ganapathiraman 2023, "Zeroth Order GreedyLR": factor 0.95, patience 10, no
averaging unless asked for. The bounds, [`final_lr`, 10] times the base, are ours.

A move counts the exponent of the factor, a whole number, so a state in single precision holds it exactly.
The LR stops moving at its bounds, the run's `min_lr` and `max_lr` included: nothing piles up behind them.
A base LR beyond them starts at the nearer one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import final

import numpy as np
import numpy.typing as npt

from mlrs_core.config import ScheduleKind, ScheduleSpec
from mlrs_core.config.schedule import MAX_COUNT
from mlrs_core.policy import Floats, Networks, Rows, RunColumns, RunTable, Signals, States, Steps, columns_of
from mlrs_core.schedules.base import base_lrs, warmup_ramp
from mlrs_core.schedules.rounds import rounds

LEAST = 1e-12
"""No reduction goes below this times the base LR."""
MOST = {ScheduleKind.PLATEAU: 1.0, ScheduleKind.GREEDY: 10.0}
"""No rise goes above this times the base LR."""
EPOCHS = 100
"""So many stretches of the horizon stand for epochs."""
UNKNOWN_EPOCH = 100
"""The steps of one where the horizon is not known."""
PATIENCE_EPOCHS = 10
"""The patience in epochs, torch's default."""
_LARGEST = float(np.finfo(np.float32).max)


@dataclass
class _Memory:
    """What a run remembers, (n,) float64 each; the fields in the order of the state."""

    seen: Floats
    """0 before the first loss, then 1."""
    average_high: Floats
    """The average, rounded to single precision; and"""
    average_low: Floats
    """what the rounding left."""
    best_high: Floats
    best_low: Floats
    good: Floats
    """Good steps in a row."""
    bad: Floats
    cooldown: Floats
    """Steps of cooldown that are left."""
    exponent: Floats
    """How often the factor is in the LR; negative after rises."""

    @classmethod
    def of(cls, rows: States) -> _Memory:
        """Return the memory in states' rows, (n, STATE_SIZE)."""
        return cls(*np.ascontiguousarray(rows.T.astype(np.float64)))

    def rows(self) -> States:
        """Return the memory as states' rows."""
        return np.column_stack([getattr(self, field.name) for field in fields(self)]).astype(np.float32)


STATE_SIZE = len(fields(_Memory))
"""Floats in a run's state."""


@final
class MetricKernel:
    """`Policy` of a schedule that watches the loss. A run's state is a row of `STATE_SIZE` floats."""

    def __init__(self, spec: ScheduleSpec) -> None:
        """Serve the shape of a spec; `base_lr` and `warmup` come from the runs."""
        self._spec = spec.resolved()
        self._rises = spec.kind is ScheduleKind.GREEDY
        self._log_factor = math.log(self._spec.factor or 1.0)

    @property
    def state_size(self) -> int:
        """The length of a run's state."""
        return STATE_SIZE

    @property
    def network_size(self) -> int:
        """The length of a run's own network: 0, it has none."""
        return 0

    def init_state(self, n: int) -> States:
        """Return the states of n runs before their first step, (n, STATE_SIZE) float32."""
        return np.zeros((n, STATE_SIZE), np.float32)

    def background(self) -> MetricKernel:
        """Return itself: what it computes is Python's, which lets other threads go on."""
        return self

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
        del networks, signals
        finite = np.flatnonzero(np.isfinite(losses))
        for turn in rounds(rows[finite]):
            entries = finite[turn]
            runs = columns_of(table[rows[entries]])
            lrs[entries], states[rows[entries]] = self._step(
                states[rows[entries]], steps[entries], losses[entries], runs
            )

    def _step(self, states: States, steps: Steps, losses: Floats, runs: RunColumns) -> tuple[Floats, States]:
        """Return what a step of distinct runs gives."""
        memory = _Memory.of(states)
        improved = self._remember(memory, losses, _share(runs, 1))
        self._count(memory, improved, steps < runs.warmup)
        base = base_lrs(runs)
        low = np.clip(base * max(self._spec.final_lr or 0.0, LEAST), runs.min_lr, runs.max_lr)
        high = np.clip(base * MOST[self._spec.kind], runs.min_lr, runs.max_lr)
        start = np.clip(base, low, high)
        self._move(memory, self._patience(runs), self._lrs(start, memory), low, high)
        lrs = np.clip(self._lrs(start, memory), low, high)
        return warmup_ramp(steps, runs.warmup) * lrs, memory.rows()

    def _lrs(self, start: Floats, memory: _Memory) -> Floats:
        """Return the LRs before their bounds and the warmup, (n,)."""
        lrs: Floats = start * np.exp(self._log_factor * memory.exponent)
        return lrs

    def _patience(self, runs: RunColumns) -> Floats:
        if self._spec.patience is None:
            return np.minimum(_share(runs, PATIENCE_EPOCHS), MAX_COUNT)
        return np.full(len(runs), float(self._spec.patience))

    def _remember(self, memory: _Memory, losses: Floats, epoch: Floats) -> npt.NDArray[np.bool_]:
        """Take in a loss, in place; return where it is an improvement."""
        first = memory.seen == 0
        span = epoch if self._spec.smoothing is None else np.full(len(epoch), float(self._spec.smoothing))
        rate = np.where(first, 1.0, 2 / (span + 1))
        average = memory.average_high + memory.average_low
        average = (1 - rate) * average + rate * np.clip(losses, -_LARGEST, _LARGEST)
        best = memory.best_high + memory.best_low
        improved: npt.NDArray[np.bool_] = average < best - (self._spec.threshold or 0.0) * np.abs(best)
        improved |= first
        memory.average_high, memory.average_low = _halves(average)
        memory.best_high = np.where(improved, memory.average_high, memory.best_high)
        memory.best_low = np.where(improved, memory.average_low, memory.best_low)
        memory.seen = np.ones(len(losses))
        return improved

    def _count(
        self, memory: _Memory, improved: npt.NDArray[np.bool_], warming: npt.NDArray[np.bool_]
    ) -> None:
        """Count good and bad steps, in place."""
        cooling = memory.cooldown > 0
        memory.good = np.where(improved & ~warming, memory.good + 1, 0.0)
        memory.bad = np.where(improved | warming | cooling, 0.0, memory.bad + 1)
        memory.cooldown = np.where(cooling, memory.cooldown - 1, 0.0)

    def _move(self, memory: _Memory, patience: Floats, lrs: Floats, low: Floats, high: Floats) -> None:
        """Move the exponents of the runs whose patience is over, in place."""
        falls = memory.bad > patience
        rises = (memory.good > patience) & self._rises
        memory.exponent = memory.exponent + (falls & (lrs > low)) - (rises & (lrs < high))
        memory.bad = np.where(falls, 0.0, memory.bad)
        memory.good = np.where(rises, 0.0, np.minimum(memory.good, 2.0 * MAX_COUNT))
        memory.cooldown = np.where(falls, float(self._spec.cooldown or 0), memory.cooldown)


def _share(runs: RunColumns, epochs: int) -> Floats:
    """Return the steps that stand for so many epochs, (n,): those of the horizon in one division."""
    known = np.maximum(runs.horizon // (EPOCHS // epochs), 1)
    return np.where(runs.horizon > 0, known, UNKNOWN_EPOCH * epochs).astype(np.float64)


def _halves(values: Floats) -> tuple[Floats, Floats]:
    """Return what single precision keeps of some values, and of what that leaves."""
    high = values.astype(np.float32).astype(np.float64)
    return high, (values - high).astype(np.float32).astype(np.float64)
