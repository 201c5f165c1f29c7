"""How a record is read on after its stream breaks, for threads and asyncio."""

from __future__ import annotations

from dataclasses import replace

from mlrs.errors import MlrsError, NotOwnerError, UnavailableError
from mlrs.protocol.addresses import LONGEST_ATTEMPT_S, Addresses
from mlrs.protocol.deadline import Deadline
from mlrs.protocol.routing import Route
from mlrs.values.types import RecordChunk


class Following:
    """The reading position in one record, over one stream or, with several addresses, several streams.

    The steps that were returned are durable, so the next stream begins with the step after them.

    Attributes:
        from_step: the first step to ask for.
    """

    def __init__(
        self, addresses: Addresses, from_step: int, timeout_s: float | None, default_timeout_s: float
    ) -> None:
        """`timeout_s`: the deadline of the whole; `None`: only the first attempt has one, the default."""
        self.from_step = from_step
        self._addresses = addresses
        self._deadline = None if timeout_s is None else Deadline(timeout_s)
        self._route = Route(addresses, self._deadline or Deadline(default_timeout_s))
        self._updated = -1  # the step of the last meta update
        self._has_begun = False  # whether any stream has sent a message
        self._works = False  # whether this stream has

    @property
    def address(self) -> str:
        """The address to call now."""
        return self._route.address

    def left_s(self) -> float | None:
        """Return the time that is left for the whole, in seconds; `None`: it has no deadline."""
        return None if self._deadline is None else self._deadline.left_s()

    def take(self, chunk: RecordChunk) -> RecordChunk | None:
        """Return the new part of a message; `None`: nothing is new."""
        is_greeting = self._has_begun and not self._works
        if not self._works:
            self._route.works()
            self._has_begun = self._works = True
        self.from_step = chunk.first_step + len(chunk.losses)
        # A stream begins with the update of the step before: the stream before may have shown it, or not.
        new = tuple(one for one in chunk.updates if one.step >= chunk.first_step or one.step != self._updated)
        if chunk.updates:
            self._updated = chunk.updates[-1].step
        return None if is_greeting and not chunk.losses and not new else replace(chunk, updates=new)

    def broke(self, error: MlrsError) -> float:
        """Choose where to stream next; return the pause before, in seconds. Raises the error if nowhere."""
        if not self._works:
            return self._route.failed(error)
        self._works = False
        owner = error.owner if isinstance(error, NotOwnerError) else None
        if owner is not None:
            self._addresses.learn(owner)
        elif isinstance(error, UnavailableError) and not isinstance(error, NotOwnerError):
            self._addresses.fails(self.address, timed_out=False)
        if not (isinstance(error, UnavailableError) and self._addresses.several):
            raise error
        deadline = self._deadline or Deadline(LONGEST_ATTEMPT_S)  # a takeover takes the lease
        self._route = Route(self._addresses, deadline, owner)
        return 0.0
