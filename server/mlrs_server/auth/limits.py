"""The limits of a tenant, and its current use of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from mlrs_core.models.checkpoint import MAX_FILE_BYTES
from mlrs_server.errors import AdvisorError, Reason

LONGEST_WAIT_S = 1.0
"""The longest delay of a message over the rate; a longer one refuses the message."""

Count = Annotated[int, Field(ge=0, le=2**40)]
Rate = Annotated[float, Field(ge=1, le=1e9)]
ModelBytes = Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]


class Limits(BaseModel):
    """The most that one tenant may use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_runs: Count = 1_000_000
    """Unfinished runs, in memory or stored."""
    max_streams: Count = 10_000
    """Open streams at each replica."""
    max_messages_per_s: Rate = 100_000
    """Messages per second at each replica; the burst after an idle second is as large."""
    max_model_bytes: ModelBytes = MAX_FILE_BYTES
    """The size of an uploaded model, in bytes."""


class LimitChanges(BaseModel):
    """Limits of one tenant that differ from the defaults; `None` is the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_runs: Count | None = None
    max_streams: Count | None = None
    max_messages_per_s: Rate | None = None
    max_model_bytes: ModelBytes | None = None


class Usage:
    """A tenant's open streams and message rate in this process. Used from one event loop."""

    def __init__(self, tenant: str, limits: Limits) -> None:
        """Start with no streams and a full burst of messages."""
        self.tenant = tenant
        self.limits = limits
        self.streams = 0
        """The number of open streams."""
        self._left = self._burst = limits.max_messages_per_s
        self._filled = time.monotonic()

    def take(self) -> bool:
        """Count a message; return whether it is within the rate. If not, `throttle` delays it.

        The clock is read only when the allowance is used up, so most messages cost one subtraction.
        """
        self._left -= 1
        if self._left >= 0:
            return True
        now = time.monotonic()
        self._left = min(self._left + (now - self._filled) * self._burst, self._burst - 1)
        self._filled = now
        return self._left >= 0

    async def throttle(self) -> None:
        """Wait until the message counted last is within the rate.

        Raises:
            AdvisorError: the delay would exceed `LONGEST_WAIT_S`.
        """
        wait_s = -self._left / self.limits.max_messages_per_s
        if wait_s > LONGEST_WAIT_S:
            self._left += 1
            rate = self.limits.max_messages_per_s
            raise self.exceeded(
                "max_messages_per_s", rate, f"more than {rate:g} messages a second; slow down"
            )
        await asyncio.sleep(wait_s)

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Count an open stream for the length of the block.

        Raises:
            AdvisorError: the tenant already has as many open streams as it may.
        """
        if self.streams >= (most := self.limits.max_streams):
            raise self.exceeded("max_streams", most, f"{self.streams} streams are open; close some")
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1

    def exceeded(self, limit: str, value: float, problem: str) -> AdvisorError:
        """Return the error for a tenant that has reached one of its limits."""
        setting = f"[tenants.{self.tenant}.limits], or [limits]" if self.tenant else "[limits]"
        return AdvisorError(
            Reason.TENANT_LIMIT,
            f"{limit}: {problem}. The limit is {value:g}: `{limit}` under {setting} in the daemon's settings",
            field=limit,
        )
