"""What a network, or a schedule, must offer to be served: a pure step over a batch of runs.

A policy is ready to compute: a model with its weights, or a schedule with its shape. It keeps nothing
between calls: the state of each run is a row of a matrix that the caller keeps, as in optax's `init` /
`update` pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlrs_core.config import RunConfig

Floats = npt.NDArray[np.float64]
"""An array of doubles: losses, learning rates."""
States = npt.NDArray[np.float32]
"""An array of run states, a row a run."""
Steps = npt.NDArray[np.int64]
"""An array of steps."""


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
    """The learning rate to start from; NaN: the usual one."""
    min_lr: Floats
    """Lower bound of the advice; 0 where none was given."""
    max_lr: Floats
    """Upper bound of the advice; inf where none was given."""
    base_lr: Floats
    """The LR that the run's schedule multiplies; NaN: not given, or no schedule."""
    warmup: Steps
    """Steps of the schedule's warmup; 0 where none was given."""

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.horizon)

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> RunColumns:
        """Return the columns of some rows, given as indices or as a mask."""
        return RunColumns(*(getattr(self, name)[rows] for name in COLUMN_TYPES))

    @classmethod
    def empty(cls, size: int) -> RunColumns:
        """Return columns of `size` rows without meaning yet, for `put`."""
        columns: Iterator[Any] = (np.zeros(size, dtype) for dtype in COLUMN_TYPES.values())
        return cls(*columns)

    @classmethod
    def of(cls, configs: Sequence[RunConfig]) -> RunColumns:
        """Return the columns of some configs."""
        columns = cls.empty(len(configs))
        for row, config in enumerate(configs):
            columns.put(row, config)
        return columns

    def put(self, row: int, config: RunConfig) -> None:
        """Write a config into a row."""
        self.horizon[row] = -1 if config.horizon is None else config.horizon
        self.log_classes[row] = math.nan if config.num_classes is None else math.log(config.num_classes)
        self.scale[row] = math.nan if config.scale is None else config.scale
        self.snapshot[row] = -1 if config.snapshot is None else config.snapshot
        self.optimizer[row] = int(config.optimizer)
        self.momentum[row] = math.nan if config.momentum is None else config.momentum
        self.initial_lr[row] = math.nan if config.initial_lr is None else config.initial_lr
        self.min_lr[row] = 0.0 if config.min_lr is None else config.min_lr
        self.max_lr[row] = math.inf if config.max_lr is None else config.max_lr
        spec = config.schedule
        self.base_lr[row] = math.nan if spec is None or spec.base_lr is None else spec.base_lr
        self.warmup[row] = 0 if spec is None or spec.warmup is None else spec.warmup


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
}
"""The columns of `RunColumns` in order, with their element types."""


class Policy(Protocol):
    """A model or a schedule, ready to compute. Implementations are final and batch-invariant.

    Batch-invariant: the bits of a row of the result depend on that row of the arguments alone, not
    on how many rows there are, which ones, or in what order.
    """

    @property
    def state_size(self) -> int:
        """The length of a run's state."""
        ...

    def init_state(self, n: int) -> States:
        """Return the states of n runs before their first step, (n, state_size) float32."""
        ...

    def step(self, states: States, steps: Steps, losses: Floats, runs: RunColumns) -> tuple[Floats, States]:
        """Advance n runs by one step.

        Args:
            states: (n, state_size) float32; not changed.
            steps: (n,) int64, the steps the losses belong to.
            losses: (n,) float64, nats or whatever the loop's loss is in; finite.
            runs: the configs of the n runs.

        Returns:
            Learning rates, (n,) float64, finite and positive (0 only from where a schedule ends, if
            its final LR is 0); and the new states.
        """
        ...
