"""The protocol of a policy whose network is adapted in each run."""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mlrs_core.policy import Networks, Policy, RunTable, States

Vector = npt.NDArray[np.float32]
"""A state, or a network, of one run."""
MAX_ALIGNMENT = 1e30
"""The largest magnitude of an alignment."""


class MetaOutcome(enum.IntEnum):
    """What a meta update did. Stored meta updates hold these numbers."""

    APPLIED = 1
    """The weights moved by a step of Adam."""
    CLIPPED = 2
    """The alignment was clipped first."""
    SCALED = 3
    """The update was scaled down: the learning rate would have moved too far."""
    CLIPPED_AND_SCALED = 4
    """The alignment was clipped, and the update was scaled down."""
    IDLE = 5
    """Nothing moved: the learning rate does not depend on the weights here, or the alignment is 0."""


class Adapted(NamedTuple):
    """What a meta update did, and the learning rate that results."""

    outcome: MetaOutcome
    lr: float
    """The policy's learning rate for the newest step under the new weights, before the run's bounds: the
    caller clips it to `min_lr` and `max_lr`. NaN: the learning rate that was advised
    is unchanged."""
    log_change: float
    """How far the update moved the logarithm of the learning rate at the step that it went through."""


class MetaCounters(NamedTuple):
    """What became of a run's meta updates. Counts are exact up to 2**24, and stay there."""

    updates: int
    """How many there were, idle ones included."""
    clipped: int
    """How many alignments were clipped."""
    scaled: int
    """How many updates were scaled down."""
    returns: int
    """How often the last good weights were restored."""
    last_log_change: float
    """The `log_change` of the newest update; 0 before the first."""
    adapted: bool
    """Whether the newest step has had its update."""


class AdaptivePolicy(Policy, Protocol):
    """A model with meta settings whose runs each adapt a network of their own.

    A run's state begins with that of the model's frozen policy. Until its first update a run uses the
    model's weights, and gets the bits that the frozen policy gives; the content of its row of the networks
    is ignored. Everything is a function of the observations and updates in their order.
    """

    @property
    def counters_at(self) -> int:
        """Where in a run's state its counters begin: `counters_of` then needs no model."""
        ...

    def background(self) -> AdaptivePolicy:
        """Return the same policy for long work on another thread; see `Policy.background`."""
        ...

    def first_network(self) -> Vector:
        """Return the network of a run before its first update, (network_size,) float32.

        Four blocks: the model's weights, Adam's first and second moments (0), and the last good weights.
        """
        ...

    def adapt(
        self, states: States, networks: Networks, table: RunTable, row: int, step: int, alignment: float
    ) -> Adapted:
        """Make one meta update of one run, in place.

        Args:
            states: (runs, state_size) float32; the run's row changes.
            networks: (runs, network_size) float32; the run's row changes.
            table: the configs of the runs, (runs,).
            row: the run.
            step: its newest step, the one that the update is about.
            alignment: <gradient of the validation loss at w', d>, with w' = w - lr d.

        Raises:
            InvalidFieldError: the alignment is not finite, or beyond MAX_ALIGNMENT.
        """
        ...

    def meta_counters(self, state: Vector) -> MetaCounters:
        """Return what became of the updates of the run with this state, (state_size,)."""
        ...

    def weights_of(self, network: Vector) -> tuple[dict[str, Vector], ...]:
        """Return the weights in a network, (network_size,), by snapshot and name, as in a `Model`."""
        ...
