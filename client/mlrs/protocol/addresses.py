"""The addresses of a daemon's replicas: which one to call first, and with which deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from mlrs.errors import InvalidArgumentError
from mlrs.values import arguments as check

LEAST_ATTEMPT_S = 0.25
"""The shortest deadline of an attempt at one of several addresses, in seconds."""
LONGEST_ATTEMPT_S = 15.0
"""The longest deadline of an attempt in the background, in seconds: keepalive takes that long to notice a
dead connection."""
MAX_LEARNED = 64
"""The most addresses that are learned from redirects."""


Revive: TypeAlias = Callable[[Callable[[str], object]], None]
"""Starts a daemon in the background; is given what to call with its address then."""
Look: TypeAlias = Callable[[str], str]
"""Says how a person looks at a run."""


@dataclass(slots=True)
class _Health:
    """The recent failures of an address."""

    failed_at: float = 0.0
    """When it last failed; 0: it has worked since."""
    timeouts: int = 0
    """The number of timeouts in a row."""


class Addresses:
    """The addresses that the user gave, and those learned from redirects.

    Attributes:
        configured: those that the user gave, at least one.
    """

    def __init__(
        self, configured: tuple[str, ...], revive: Revive | None = None, look: Look | None = None
    ) -> None:
        """Make the addresses of a daemon.

        Args:
            configured: those that the user gave.
            revive: starts the daemon again in the background; it is called whenever none is there.
            look: says how a person looks at a run of a daemon that nobody chose.
        """
        self.configured = configured
        self._revive = revive
        self._look = look
        self._known = {address: _Health() for address in configured}
        self._last_good = configured[0]

    def __str__(self) -> str:
        return ",".join(self.configured)

    @property
    def is_revived(self) -> bool:
        """Whether a daemon that is not there is started again."""
        return self._revive is not None

    def where_to_look(self, run_id: str) -> str:
        """Return how a person looks at a run of a daemon that nobody chose; empty: who chose it knows."""
        return "" if self._look is None else self._look(run_id)

    @property
    def several(self) -> bool:
        """Whether there is more than one address."""
        return len(self._known) > 1

    def in_order(self, home: str | None = None) -> list[str]:
        """Return all addresses, those that work first, and among them `home`."""

        def rank(address: str) -> tuple[float, bool, bool]:
            return self._known[address].failed_at, address != home, address != self._last_good

        return sorted(list(self._known), key=rank)  # noqa: C414 # a copy: a start adds to it in its thread

    def learn(self, address: str) -> bool:
        """Add an address that a daemon named; return whether it can be asked."""
        if address in self._known:
            return True
        if len(self._known) - len(self.configured) >= MAX_LEARNED:
            return False
        try:
            self._known[check.target(address)] = _Health()
        except InvalidArgumentError:
            return False
        return True

    def works(self, address: str) -> None:
        """Note that an address answered a call with success."""
        self._last_good = address
        self.lives(address)

    def lives(self, address: str) -> None:
        """Note that an address answered."""
        self._known[address] = _Health()

    def fails(self, address: str, *, timed_out: bool) -> None:
        """Note that an address was unreachable, or did not answer in time."""
        health = self._known[address]
        health.failed_at = time.monotonic()
        health.timeouts = health.timeouts + 1 if timed_out else 0
        if self._revive is not None and not timed_out:
            self._revive(self.learn)

    def limit_s(self, address: str, left_s: float) -> float:
        """Return how long to wait for an address, in seconds, of the time that is left.

        If there are other addresses, that is half of it, and less after timeouts: a stopped daemon must not
        use up a deadline that another replica would meet.
        """
        if not self.several:
            return left_s
        share_s = left_s / 2
        if timeouts := self._known[address].timeouts:
            share_s = min(share_s, LEAST_ATTEMPT_S * 2 ** min(timeouts - 1, 10))
        return min(left_s, max(share_s, LEAST_ATTEMPT_S))
