"""A meta update of a run, and those of a group that wait to be stored."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mlrs_core.policy import Rows, States
from mlrs_server.domain.ledger import Records

KEEP_AFTER_UPDATES = 64
"""A run's network is stored after so many updates at the latest ..."""
KEEP_AFTER_STEPS = 4096
"""... or, once there was one, after so many steps: what a recovery makes again takes some milliseconds."""


@dataclass(frozen=True, slots=True)
class MetaUpdate:
    """A meta update as it was made."""

    step: int
    """The step that it is about."""
    alignment: float
    """As it was sent."""
    validation_loss: float | None
    """Likewise, if one was, and a number."""
    outcome: int
    """`mlrs_core.adapting.MetaOutcome`."""
    lr: float
    """The learning rate for the step under the new weights."""
    log_change: float
    """How far it moved the logarithm of the learning rate."""

    def is_of(self, alignment: float) -> bool:
        """Return whether it was made of this alignment."""
        return self.alignment == alignment or (math.isnan(self.alignment) and math.isnan(alignment))


@dataclass(frozen=True, slots=True)
class MadeUpdate:
    """An update that waits to be stored, and whose it is."""

    row: int
    key: int
    update: MetaUpdate


@dataclass(frozen=True)
class KeptNetworks:
    """Networks of k runs of one policy, as they are to be stored."""

    rows: list[int]
    """Where in their group the runs are, (k,)."""
    records: Records
    """The runs, (k,) of `RECORD`."""
    states: States
    """(k, state_size)."""
    networks: States
    """(k, network_size)."""
    updates: list[int]
    """How many updates led to each."""
    first: States
    """What each began with, (network_size,)."""


class MetaLog:
    """The meta updates of a group's rows that are not stored yet, in their order.

    It also counts, by row, what came since a run's network was last stored.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self.made: list[MadeUpdate] = []
        self._since: dict[int, int] = {}  # updates, by row, of those that ever had one
        self._kept_at: dict[int, int] = {}  # the step before which the network was stored, by row

    def add(self, row: int, key: int, update: MetaUpdate) -> None:
        """Note an update."""
        self.made.append(MadeUpdate(row, key, update))
        self._since[row] = self._since.get(row, 0) + 1

    def take(self) -> list[MadeUpdate]:
        """Return all updates, and keep none."""
        taken, self.made = self.made, []
        return taken

    def take_rows(self, rows: Iterable[int]) -> list[MadeUpdate]:
        """Return the updates of some rows, and keep the others."""
        wanted = set(map(int, rows))
        taken = [made for made in self.made if made.row in wanted]
        self.made = [made for made in self.made if made.row not in wanted]
        return taken

    def put_back(self, taken: list[MadeUpdate]) -> None:
        """Put updates that were taken before those that came since."""
        self.made = [*taken, *self.made]

    def drop(self, rows: Iterable[int]) -> int:
        """Drop the updates of some rows; return how many there were."""
        return len(self.take_rows(rows))

    def forget(self, row: int) -> None:
        """Let a row be another run's."""
        self._since.pop(row, None)
        self._kept_at.pop(row, None)

    def begin(self, row: int, kept_at: int, since: int, *, lost: bool = False) -> None:
        """Take in a run whose network was stored before a step, and had so many updates since.

        Where the stored one was lost, it is to be stored with whatever comes next.
        """
        if kept_at or since:
            self._kept_at[row] = kept_at
            self._since[row] = max(since, KEEP_AFTER_UPDATES) if lost else since

    def due(self, rows: Rows, records: Records) -> list[int]:
        """Return those of some rows whose networks are to be stored."""
        return [
            row
            for row in rows.tolist()
            if row in self._since
            and (
                self._since[row] >= KEEP_AFTER_UPDATES
                or records["next_step"][row] - self._kept_at.get(row, 0) >= KEEP_AFTER_STEPS
            )
        ]
