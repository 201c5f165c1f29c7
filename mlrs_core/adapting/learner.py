"""What an architecture brings to meta mode."""

from __future__ import annotations

from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from mlrs_core.policy import Floats, Networks, Rows, RunTable, Signals, States, Steps

Vector = npt.NDArray[np.float32]


class Learner(Protocol):
    """A network that serves, under shared weights or a run's own, and says how its learning rate moves.

    A **trace** is all that one step of the network saw, cell state included: with the weights it gives the
    learning rate again. Implementations are compiled, and compute each run by itself.
    """

    @property
    def shared(self) -> npt.NDArray[np.float32]:
        """The model's weights, (K, P)."""
        ...

    @property
    def frozen_size(self) -> int:
        """The length of the frozen policy's state, where a state begins."""
        ...

    @property
    def trace_size(self) -> int:
        """The length of a trace."""
        ...

    @property
    def traces(self) -> int:
        """How many traces of the newest steps follow the frozen policy's state, before RING of updates."""
        ...

    def init_frozen(self, n: int) -> States:
        """Return the frozen policy's states of n runs before their first step, (n, frozen_size)."""
        ...

    def unpacked(self, weights: Vector) -> dict[str, Vector]:
        """Return the weights of one snapshot, (P,), by name."""
        ...

    def background(self) -> Self:
        """Return the same for long work on another thread; see `Policy.background`."""
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
        blow_up: float,
    ) -> None:
        """Advance runs as `Policy.advance`, keeping traces, watched by `guard_rails.watch`."""
        ...

    def find(self, state: Vector, network: Vector, table: RunTable, row: int) -> tuple[int, int, float]:
        """Return where the learning rate of a run comes from.

        Returns:
            Which trace, -1 if it does not depend on the weights; the snapshot; and the learning rate.
        """
        ...

    def slope(self, trace: Vector, table: RunTable, row: int, weights: Vector, gradient: Floats) -> None:
        """Fill the gradient, (P,), of the log learning rate of a trace under the weights of its snapshot."""
        ...

    def levels(self, traces: States, table: RunTable, row: int, network: Vector, levels: Floats) -> None:
        """Fill the log learning rates, but for constants, of some traces under a network, each (n,)."""
        ...

    def again(self, state: Vector, table: RunTable, row: int, network: Vector) -> float:
        """Take the newest step, which asked the network, again; return its learning rate."""
        ...
