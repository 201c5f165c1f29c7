"""Which daemon a program talks to when it names none."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from mlrs.errors import MlrsError
from mlrs.local.dashboard import where_to_look
from mlrs.local.place import Place, local_place
from mlrs.local.starting import started_at
from mlrs.protocol.addresses import Addresses
from mlrs.values import arguments as check

TARGET_VARIABLE = "MLRS_TARGET"
"""The environment variable of the default address."""
PAUSE_S = 30.0
"""How long after a start that failed the next one is tried, in seconds."""
_logger = logging.getLogger("mlrs")


@dataclass(frozen=True)
class Target:
    """A daemon: its addresses, and how to start it where that is the client's matter."""

    addresses: tuple[str, ...]
    """Its addresses, or those of its replicas."""
    starter: Starter | None = None
    """Starts it; `None`: others do."""

    def known(self, *started: str) -> Addresses:
        """Return its addresses for a connection; `started`: where it listens, if it was started."""
        if self.starter is None:
            return Addresses(self.addresses)
        return Addresses(started or self.addresses, self.starter.revive, self.starter.where_to_look)


def target_of(given: object) -> Target:
    """Return the daemon that a user means; does not wait.

    Args:
        given: the addresses; `None`: those of the environment variable `MLRS_TARGET`, or else the daemon of
            this user on this machine.

    Raises:
        InvalidArgumentError: an address names no port.
        UnavailableError: no daemon is named, and there is no place for one on this machine.
    """
    named = os.environ.get(TARGET_VARIABLE) or None if given is None else given
    if named is not None:
        return Target(check.targets(named))
    place = local_place()
    return Target((place.address,), Starter(place))


class Starter:
    """Starts a user's daemon where it does not run."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._starting = threading.Lock()
        self._not_before = 0.0  # when the next start may be tried, after one that failed
        self._has_warned = False  # since a start succeeded

    def start(self) -> str:
        """Return the address of the daemon, which is started if it does not run; waits for it.

        Raises:
            UnavailableError: none could be started; the message says why.
        """
        return started_at(self._place)

    def where_to_look(self, run_id: str) -> str:
        """Return how a person looks at a run of the daemon."""
        return where_to_look(self._place, run_id)

    def revive(self, learn: Callable[[str], object]) -> None:
        """Start the daemon again if it has ended, in a thread of its own; does not wait.

        Args:
            learn: is called with its address, which another login session may have chosen.
        """
        if time.monotonic() < self._not_before or not self._starting.acquire(blocking=False):
            return
        try:
            threading.Thread(target=self._revive, args=[learn], name="mlrs-start", daemon=True).start()
        except RuntimeError:  # no thread can be started: Python is ending, or there are too many
            self._starting.release()

    def _revive(self, learn: Callable[[str], object]) -> None:
        try:
            learn(self.start())
            self._has_warned = False
        except (MlrsError, OSError) as error:
            self._not_before = time.monotonic() + PAUSE_S
            if not self._has_warned:
                _logger.warning("the daemon has ended, and does not start again: %s", error)
            self._has_warned = True
        finally:
            self._starting.release()
