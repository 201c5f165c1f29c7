"""Meta updates of runs, and the log of a group's updates that are not stored yet."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mlrs_core.policy import Rows, States
from mlrs_server.domain.ledger import Records

CHECKPOINT_UPDATES = 64
"""A run's adapted weights are stored after at most this many updates."""
CHECKPOINT_STEPS = 4096
"""A run that has had updates has its adapted weights stored after at most this many steps, so that recovery
replays a few milliseconds of work."""


@dataclass(frozen=True, slots=True)
class MetaUpdate:
    """A meta update that was applied."""

    step: int
    """The step of the run."""
    alignment: float
    """The alignment that was sent."""
    validation_loss: float | None
    """The validation loss that was sent, unless none or NaN was."""
    outcome: int
    """`mlrs_core.adapting.MetaOutcome`."""
    lr: float
    """The learning rate of the step under the new weights."""
    log_change: float
    """The change of the logarithm of the learning rate."""

    def is_of(self, alignment: float) -> bool:
        """Return whether the update was computed from this alignment; NaNs are equal."""
        return self.alignment == alignment or (math.isnan(self.alignment) and math.isnan(alignment))


@dataclass(frozen=True, slots=True)
class AppliedUpdate:
    """An update that is not stored yet, with its run's row and key."""

    row: int
    key: int
    update: MetaUpdate


@dataclass(frozen=True)
class WeightCheckpoints:
    """Adapted weights of k runs of one policy, to be stored."""

    rows: list[int]
    """The runs' rows in their group, (k,)."""
    records: Records
    """The runs' records, (k,) of `RECORD`."""
    states: States
    """The runs' states, (k, state_size)."""
    networks: States
    """The adapted weights, (k, network_size)."""
    updates: list[int]
    """The number of updates of each run, (k,)."""
    first: States
    """The weights before the first update, (network_size,)."""


class MetaLog:
    """The meta updates of a group that are not stored yet, in order.

    It also counts, by row, the updates since the last checkpoint of a run's adapted weights.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.applied: list[AppliedUpdate] = []
        self._since: dict[int, int] = {}  # updates since the checkpoint, by row
        self._checkpoint_at: dict[int, int] = {}  # the next step at the checkpoint, by row

    def add(self, row: int, key: int, update: MetaUpdate) -> None:
        """Add an update of a row."""
        self.applied.append(AppliedUpdate(row, key, update))
        self._since[row] = self._since.get(row, 0) + 1

    def take(self) -> list[AppliedUpdate]:
        """Remove and return all updates."""
        taken, self.applied = self.applied, []
        return taken

    def take_rows(self, rows: Iterable[int]) -> list[AppliedUpdate]:
        """Remove and return the updates of rows."""
        wanted = set(map(int, rows))
        taken = [one for one in self.applied if one.row in wanted]
        self.applied = [one for one in self.applied if one.row not in wanted]
        return taken

    def put_back(self, taken: list[AppliedUpdate]) -> None:
        """Insert updates that were taken before those added since."""
        self.applied = [*taken, *self.applied]

    def drop(self, rows: Iterable[int]) -> int:
        """Remove the updates of rows; return how many there were."""
        return len(self.take_rows(rows))

    def forget(self, row: int) -> None:
        """Forget the counts of a row, which another run may get."""
        self._since.pop(row, None)
        self._checkpoint_at.pop(row, None)

    def begin(self, row: int, checkpoint_at: int, since: int, *, lost: bool = False) -> None:
        """Start counting for a run that was loaded from the store.

        Args:
            row: the run's row.
            checkpoint_at: the next step at its last checkpoint, or 0.
            since: the number of updates since.
            lost: whether that checkpoint is damaged; a new one is then due at once.
        """
        if checkpoint_at or since:
            self._checkpoint_at[row] = checkpoint_at
            self._since[row] = max(since, CHECKPOINT_UPDATES) if lost else since

    def due(self, rows: Rows, records: Records) -> list[int]:
        """Return those of the rows, (k,), whose adapted weights are due to be stored."""
        return [
            row
            for row in rows.tolist()
            if row in self._since
            and (
                self._since[row] >= CHECKPOINT_UPDATES
                or records["next_step"][row] - self._checkpoint_at.get(row, 0) >= CHECKPOINT_STEPS
            )
        ]
