"""What a network, or a schedule, must offer to be served: a pure step over a batch of runs.

A policy is ready to compute: a model with its weights, or a schedule with its shape. It keeps nothing
between calls: the state of each run is a row of a matrix that the caller keeps, as in optax's `init` /
`update` pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mlrs_core.config import RunConfig

Floats = npt.NDArray[np.float64]
"""An array of doubles: losses, learning rates."""
States = npt.NDArray[np.float32]
"""An array of run states, a row a run."""
Networks = npt.NDArray[np.float32]
"""An array of runs' own networks, a row a run. A row of zeros stands for none yet."""
Steps = npt.NDArray[np.int64]
"""An array of steps."""
SIGNALS = (
    "update_norm2",
    "param_norm2",
    "grad_norm2",
    "grad_dot_update",
    "grad_dot_previous_update",
    "log_relative_update",
)
"""What a training loop may tell of the step before an observation, all of that one step: with u the update
that the optimizer made, w the weights after it and g the gradients as the optimizer saw them, |u|^2, |w|^2,
|g|^2, <g, u>, <g, u of the step before>, and ln(|u| / |w|), the mean over tensors of two and more dimensions.
"""
COLUMNS = (*SIGNALS, "validation_loss", "restored")
"""What may come with an observation besides its loss: signals, the newest validation loss, and 1 where the
training has restored a saved state since the observation before."""
Signals = npt.NDArray[np.float64]
"""What came with n observations, (n, len(COLUMNS)); NaN: not sent. (0, len(COLUMNS)): nothing was sent."""
NO_SIGNALS: Signals = np.empty((0, len(COLUMNS)))
"""What observations without any come with."""


@dataclass(frozen=True)
class RunColumns:
    """The configs of n runs as columns, each (n,). NaN or -1 stands for a value not given."""

    horizon: Steps
    """Total steps; -1: unknown."""
    log_classes: Floats
    """ln C; NaN: unknown."""
    scale: Floats
    """Explicit gamma; NaN: the model's scale rule."""
    snapshot: Steps
    """The snapshot of a run without a horizon; -1: the middle one."""
    optimizer: Steps
    """`Optimizer` as a number."""
    momentum: Floats
    """Momentum; NaN: unknown."""
    initial_lr: Floats
    """The learning rate to start from; NaN: the default one."""
    min_lr: Floats
    """Lower bound of the advice; 0 where none was given."""
    max_lr: Floats
    """Upper bound of the advice; inf where none was given."""
    base_lr: Floats
    """The LR that the run's schedule multiplies; NaN: not given, or no schedule."""
    warmup: Steps
    """Steps of the schedule's warmup; 0 where none was given."""
    octaves: Floats
    """How far off the learning rate may be that a search found, in octaves; NaN: there was no search."""
    factor: Floats
    """What the policy's learning rate is multiplied by; 1 where no offset was given."""

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.horizon)

    @classmethod
    def of(cls, configs: Sequence[RunConfig]) -> RunColumns:
        """Return the columns of some configs."""
        return columns_of(table_of(configs))

    def table(self) -> RunTable:
        """Return the same runs as a table."""
        table = np.empty(len(self), RUN)
        for name in COLUMN_TYPES:
            table[name] = getattr(self, name)
        return table


COLUMN_TYPES: dict[str, type[np.int64 | np.float64]] = {
    "horizon": np.int64,
    "log_classes": np.float64,
    "scale": np.float64,
    "snapshot": np.int64,
    "optimizer": np.int64,
    "momentum": np.float64,
    "initial_lr": np.float64,
    "min_lr": np.float64,
    "max_lr": np.float64,
    "base_lr": np.float64,
    "warmup": np.int64,
    "octaves": np.float64,
    "factor": np.float64,
}
"""The columns of `RunColumns` in order, with their element types."""


RUN = np.dtype(list(COLUMN_TYPES.items()))
"""A run's config as a record."""
RunTable = npt.NDArray[np.void]
"""The configs of runs, (n,) of `RUN`: what kernels read, a record a run."""
Rows = npt.NDArray[np.int64]
"""Indices of rows of a table and of the states beside it."""


def table_of(configs: Sequence[RunConfig]) -> RunTable:
    """Return the table of some configs."""
    table = np.zeros(len(configs), RUN)
    for row, config in enumerate(configs):
        put(table, row, config)
    return table


def columns_of(table: RunTable) -> RunColumns:
    """Return the columns of a table, each in one piece."""
    return RunColumns(*(np.ascontiguousarray(table[name]) for name in COLUMN_TYPES))


def put(table: RunTable, row: int, config: RunConfig) -> None:
    """Write a config into a row of a table, with what a search has found in its place."""
    found, config = config.found, config.after_search()
    spec = config.schedule
    table[row] = (
        -1 if config.horizon is None else config.horizon,
        math.nan if config.num_classes is None else math.log(config.num_classes),
        math.nan if config.scale is None else config.scale,
        -1 if config.snapshot is None else config.snapshot,
        int(config.optimizer),
        math.nan if config.momentum is None else config.momentum,
        math.nan if config.initial_lr is None else config.initial_lr,
        0.0 if config.min_lr is None else config.min_lr,
        math.inf if config.max_lr is None else config.max_lr,
        math.nan if spec is None or spec.base_lr is None else spec.base_lr,
        0 if spec is None or spec.warmup is None else spec.warmup,
        math.nan if found is None else found.octaves,
        2.0 ** (config.lr_offset or 0.0),
    )


def no_networks(policy: Policy, n: int) -> Networks:
    """Return the networks of n runs that have none of their own yet, (n, network_size) float32.

    Zeros that nothing has written to take no memory.
    """
    return np.zeros((n, policy.network_size), np.float32)


class Policy(Protocol):
    """A model or a schedule, ready to compute. Implementations are final and batch-invariant.

    Batch-invariant: the bits of a run's learning rates, state and network depend on its own config, steps and
    losses alone, not on which runs are advanced beside it, how many, or in what order.
    """

    @property
    def state_size(self) -> int:
        """The length of a run's state."""
        ...

    @property
    def network_size(self) -> int:
        """The length of a run's own network; 0 where all runs go by the policy's weights."""
        ...

    def init_state(self, n: int) -> States:
        """Return the states of n runs before their first step, (n, state_size) float32."""
        ...

    def background(self) -> Policy:
        """Return the same policy for long work on another thread: other threads go on while it advances runs.

        Its bits are the same.
        """
        ...

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
        """Advance runs by a step for each entry, in the order of the entries.

        Args:
            states: (runs, state_size) float32; changed in place.
            networks: (runs, network_size) float32; changed in place.
            table: the configs of the runs, (runs,).
            rows: the runs to advance, (n,); a run that is there k times advances k steps.
            steps: (n,) int64, the steps that the losses belong to.
            losses: (n,) float64, nats or whatever the loop's loss is in. Where one is not finite, nothing
                happens.
            signals: what came with the observations, contiguous, (n, len(COLUMNS)) float64; or none at all,
                (0, len(COLUMNS)).
            lrs: (n,) float64; where the loss is finite, filled with learning rates that are finite and
                positive (0 only from where a schedule ends, if its final LR is 0).
        """
        ...
