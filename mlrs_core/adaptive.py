"""What a network must offer to be served in meta mode: a policy that a run's alignments go on training."""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from mlrs_core.meta import MetaConfig
from mlrs_core.policy import Networks, Policy, RunTable, States


class MetaOutcome(enum.IntEnum):
    """What a meta update did. The numbers are those of the contract."""

    APPLIED = 1
    CLIPPED = 2
    SCALED = 3
    CLIPPED_AND_SCALED = 4
    IDLE = 5


class Adapted(NamedTuple):
    """What a meta update did to a run."""

    outcome: MetaOutcome
    lr: float
    """The policy's learning rate for the step under the new weights."""
    log_change: float
    """How far the update moved its logarithm."""


class MetaCounters(NamedTuple):
    """What became of a run's meta updates so far."""

    updates: int
    clipped: int
    scaled: int
    returns: int
    last_log_change: float
    adapted: bool
    """Whether the newest step has had its update."""


@runtime_checkable
class AdaptivePolicy(Policy, Protocol):
    """A policy whose runs learn. Implementations are final and batch-invariant."""

    @property
    def meta(self) -> MetaConfig:
        """How they do, with nothing left out."""
        ...

    def first_network(self) -> npt.NDArray[np.float32]:
        """Return what a run begins with, (network_size,)."""
        ...

    def adapt(
        self, states: States, networks: Networks, table: RunTable, row: int, step: int, alignment: float
    ) -> Adapted:
        """Make one meta update of a run, in place.

        Args:
            states: (runs, state_size) float32.
            networks: (runs, network_size) float32.
            table: the configs of the runs, (runs,).
            row: the run.
            step: its newest, whose loss is finite.
            alignment: finite.
        """
        ...

    def meta_counters(self, state: npt.NDArray[np.float32]) -> MetaCounters:
        """Return what a run's state, (state_size,), says of its updates."""
        ...
