"""A run made again from its losses and meta updates, by the code that first made it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mlrs_core.config import RunConfig
from mlrs_core.policy import Floats, Policy, States
from mlrs_server.adapting.updates import MetaUpdate
from mlrs_server.entries import Entries
from mlrs_server.runs import RunGroup, RunSnapshot, first_snapshot


class Replay:
    """Recomputes a run, from its beginning or from where it was at some time.

    It is long work, for another thread than the event loop's, which goes on meanwhile.
    """

    def __init__(
        self,
        policy: Policy,
        config: RunConfig,
        start: RunSnapshot | None = None,
        network: States | None = None,
    ) -> None:
        """Begin before the first step, or at a snapshot, with the network of then, (network_size,)."""
        start = start or first_snapshot(policy)
        self._group = RunGroup(0, "", policy.background())
        self._row = self._group.reserve()
        self._group.put(self._row, "", 0, config, start, network=network)
        self._handle = self._group.records["handle"][self._row]
        self._next_step = start.next_step

    def feed(self, losses: Floats, updates: Sequence[MetaUpdate] = ()) -> Floats:
        """Take the next losses, (n,); return their learning rates, as first advised, (n,).

        Args:
            losses: of the next steps.
            updates: the meta updates of these steps, in their order; and before them that of the step before,
                if it is not in yet.
        """
        first = self._next_step
        lrs = [
            self._observed(losses[start - first : end - first], update)
            for start, end, update in _stretches(first, first + len(losses), updates)
        ]
        return np.concatenate([np.empty(0), *lrs])

    def _observed(self, losses: Floats, update: MetaUpdate | None) -> Floats:
        """Take losses, and make a meta update after them; return their learning rates."""
        steps = np.arange(self._next_step, self._next_step + len(losses))
        self._next_step += len(losses)
        entries = Entries.of(np.full(len(losses), self._handle), steps, losses)
        if len(losses):
            self._group.answer(entries)
            self._group.log.take()
        if update is not None:
            self._group.adapt(self._row, update.alignment, update.validation_loss)
            self._group.meta.take()
        return entries.lrs.copy()

    def snapshot(self) -> RunSnapshot:
        """Return the run after what was fed so far."""
        return self._group.snapshot(self._row)

    def network(self) -> States:
        """Return its network, (network_size,)."""
        network: States = self._group.networks[self._row].copy()
        return network


def _stretches(
    first: int, end: int, updates: Sequence[MetaUpdate]
) -> Iterator[tuple[int, int, MetaUpdate | None]]:
    """Yield stretches of steps [start, end), each with the update that comes after it."""
    for update in updates:
        yield first, update.step + 1, update
        first = update.step + 1
    if first < end:
        yield first, end, None
