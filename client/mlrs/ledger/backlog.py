"""The observations and meta updates that a daemon may lack, kept until they are durable.

Each ledger has one backlog. Users' calls change it in an order that allows Ctrl-C anywhere: an interrupted
call can be repeated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Generic, TypeVar

from mlrs.ledger.entries import Observed
from mlrs.ledger.order import Outgoing, in_order
from mlrs.ledger.updates import Update, Updates

MAX_KEPT = 65_536
"""The most observations that are kept, of all runs of a ledger. Beyond it the oldest steps are dropped, and a
daemon that lost them cannot continue. For one run this is hours without a daemon."""
MAX_UNANSWERED = 2**20
"""The most unanswered observations of all runs of a ledger, as of a loop that never waits while the daemon is
unreachable."""
LEAST_KEPT = 64
"""The least number of steps that are kept, for any number of runs."""

E = TypeVar("E", bound=Observed)


class Backlog(Generic[E]):
    """The observations and updates that were entered and are not known to be durable.

    Attributes:
        durable_step: observations up to and including this one survive a crash; -1: none yet.
        updates: the meta updates that are not durable yet.
    """

    def __init__(self, runs: int) -> None:
        """Begin empty; `runs`: the number of runs of the ledger."""
        self.durable_step = -1
        self.updates = Updates()
        self._most_unanswered = max(MAX_UNANSWERED // runs, LEAST_KEPT)
        self._most_kept = max(MAX_KEPT // runs, LEAST_KEPT)
        self._kept: deque[E] = deque()  # without gaps, up to the last step observed
        self._unanswered: dict[int, E] = {}  # in the order sent
        self._outgoing: Outgoing[E | Update] = Outgoing()
        self._lacked_from = 0  # the daemon's next step when the run joined last

    # ------------------------------------------------------------------ entering observations

    @property
    def is_full(self) -> bool:
        """Whether no more observations may wait for an answer."""
        return len(self._unanswered) >= self._most_unanswered

    def send(self, entry: E) -> None:
        """Queue an observation to be sent and answered."""
        self._outgoing.enter(entry)  # first: ignored later if Ctrl-C prevents the next line
        self._unanswered[entry.step] = entry

    def keep(self, entry: E) -> None:
        """Keep the observation of the next step, to send it again if the daemon loses it."""
        if self._kept and self._kept[-1].step == entry.step:  # half entered when an interrupt came
            self._kept.pop()
        self._kept.append(entry)

    def send_update(self, update: Update) -> None:
        """Queue an update to be sent and answered, and keep it."""
        self._outgoing.enter(update)  # first, as for an observation
        self.updates.enter(update)

    def bound(self) -> None:
        """Drop the oldest observation, and its update, if more are kept than may be."""
        if len(self._kept) > self._most_kept:
            self._kept.popleft()
            self.updates.let_go(self._kept[0].step - 1)

    # ------------------------------------------------------------------------ reading

    def find(self, step: int) -> E | None:
        """Return the observation of a step, if it is kept or waits for its answer."""
        if self._kept and step >= self._kept[0].step:
            index = step - self._kept[0].step
            return self._kept[index] if index < len(self._kept) else None
        return self._unanswered.get(step)

    def waits(self, entry: E) -> bool:
        """Return whether an observation is unanswered."""
        return self._unanswered.get(entry.step) is entry

    def has_kept(self, step: int) -> bool:
        """Return whether the observation of a step is kept."""
        return bool(self._kept) and self._kept[0].step <= step <= self._kept[-1].step

    def unanswered(self) -> list[E]:
        """Return the unanswered observations, in the order sent."""
        return list(self._unanswered.values())

    def last_unanswered(self) -> E | Update | None:
        """Return the last unanswered observation or update, if any."""
        entry = next(reversed(self._unanswered.values()), None)
        update = self.updates.last_unanswered()
        return entry if update is None or (entry is not None and entry.step > update.step) else update

    def has_volatile(self) -> bool:
        """Return whether anything is kept that a crash of the daemon would lose."""
        return bool(self._kept) or bool(self.updates)

    def oldest(self, next_step: int) -> int:
        """Return the first step whose observation is kept or unanswered; otherwise the next step."""
        return min([next_step, *(kept.step for kept in islice(self._kept, 1)), *islice(self._unanswered, 1)])

    def tail(self, next_step: int) -> list[E]:
        """Return the observations that the daemon may lack, without gaps up to the next step."""
        entries = {entry.step: entry for entry in self._kept} | self._unanswered
        found: list[E] = []
        for step in range(next_step - 1, -1, -1):
            if step not in entries:
                break
            found.append(entries[step])
        return found[::-1]

    # --------------------------------------------------------------- sending and answers

    def take_unsent(self, limit: int) -> list[E | Update]:
        """Return what to send next, in order, and count it as sent: entries or updates, not both.

        `limit`: the most items. An empty list: everything is sent.
        """
        items: list[E | Update] = []
        while len(items) < limit and (item := self._outgoing.first()) is not None:
            if self._is_due(item):
                if items and isinstance(item, Update) is not isinstance(items[0], Update):
                    break
                items.append(item)
            self._outgoing.pass_on()
        return items

    def _is_due(self, item: E | Update) -> bool:
        """Return whether an item was entered completely, was not refused, and may be missing in the daemon.

        An answered item may be missing, too: a late answer may be from a daemon that lost it since.
        """
        if isinstance(item, Update):
            return self.updates.has(item) and (bool(item.unanswered) or item.step >= self._lacked_from - 1)
        return self.waits(item) or (item.step >= self._lacked_from and self.find(item.step) is item)

    def _is_here(self, item: E | Update) -> bool:
        """Return whether an item may have to be sent again."""
        if isinstance(item, Update):
            return self.updates.has(item)
        return self.find(item.step) is item or self.waits(item)

    def answered(self, entry: E, durable_step: int) -> None:
        """Enter that the daemon has answered an observation, and how far the runs are durable."""
        if self.waits(entry):
            del self._unanswered[entry.step]
        self.stored(durable_step)
        self._outgoing.let_go(self._is_here)

    def stored(self, durable_step: int) -> None:
        """Drop what is durable."""
        self.durable_step = max(self.durable_step, durable_step)
        while self._kept and self._kept[0].step <= self.durable_step and self._kept[0].done:
            self._kept.popleft()
        self.updates.let_go(self.durable_step)

    def withdraw(self, entry: E) -> Sequence[E]:
        """Drop a refused observation and, if it is kept, the later ones; return those without an answer."""
        dropped = [entry]
        if self.has_kept(entry.step):
            while self._kept and self._kept[-1].step >= entry.step:
                dropped.append(self._kept.pop())
        return [each for each in dropped if self._unanswered.pop(each.step, None) is not None]

    # ------------------------------------------------------------------- after joining again

    def lacks_from(self, step: int, durable_step: int) -> None:
        """Queue again, in the order entered, what a daemon that expects a step lacks or did not answer."""
        self.durable_step = durable_step
        self._lacked_from = step
        lacked = [kept for kept in self._kept if kept.step >= step and kept.step not in self._unanswered]
        self._unanswered = in_order({entry.step: entry for entry in lacked}, self._unanswered)
        self.updates.lacks_from(step)
        self._outgoing.again()

    def forget_kept(self) -> None:
        """Drop all kept observations, because the daemon has them."""
        self._kept.clear()

    def stop_sending(self, kept: Iterable[E] | None = None) -> None:
        """Send nothing more; keep these observations for a file, or none."""
        if kept is None:
            self._kept.clear()
            self.updates.clear()
        else:
            self._kept, self._most_kept = deque(kept), self._most_unanswered
        self._outgoing.clear()
        self._unanswered.clear()
