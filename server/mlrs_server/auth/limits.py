"""The limits of a tenant, and what it uses of them."""

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
"""How long a message over the rate waits for its turn, at most."""

Count = Annotated[int, Field(ge=0, le=2**40)]
Rate = Annotated[float, Field(ge=1, le=1e9)]
ModelBytes = Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]


class Limits(BaseModel):
    """What a tenant may have at once."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_runs: Count = 1_000_000
    """Runs that are not finished, in memory or stored."""
    max_streams: Count = 10_000
    """Open streams, of a replica."""
    max_messages_per_s: Rate = 100_000
    """Messages a second, of a replica; as many may come at once after a quiet second."""
    max_model_bytes: ModelBytes = MAX_FILE_BYTES
    """The size of a model that is uploaded."""


class LimitChanges(BaseModel):
    """Limits of one tenant that are not as all others'."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_runs: Count | None = None
    max_streams: Count | None = None
    max_messages_per_s: Rate | None = None
    max_model_bytes: ModelBytes | None = None


class Usage:
    """What a tenant uses of this process, on one event loop."""

    def __init__(self, tenant: str, limits: Limits) -> None:
        """Begin with all of it free."""
        self.tenant = tenant
        self.limits = limits
        self.streams = 0
        """Streams that are open."""
        self._left = self._burst = limits.max_messages_per_s
        self._filled = time.monotonic()

    def take(self) -> bool:
        """Take a message; return whether its turn is now. If not, `turn` waits for it.

        The clock is only read when what was left is used up, so the usual message costs a subtraction.
        """
        self._left -= 1
        if self._left >= 0:
            return True
        now = time.monotonic()
        self._left = min(self._left + (now - self._filled) * self._burst, self._burst - 1)
        self._filled = now
        return self._left >= 0

    async def turn(self) -> None:
        """Wait for the turn of the message taken last.

        Raises:
            AdvisorError: it is too far off.
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
        """Have one more stream open.

        Raises:
            AdvisorError: there are as many as may be.
        """
        if self.streams >= (most := self.limits.max_streams):
            raise self.exceeded("max_streams", most, f"{self.streams} streams are open; close some")
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1

    def exceeded(self, limit: str, value: float, problem: str) -> AdvisorError:
        """Return the error of a tenant that is at one of its limits."""
        setting = f"[tenants.{self.tenant}.limits], or [limits]" if self.tenant else "[limits]"
        return AdvisorError(
            Reason.TENANT_LIMIT,
            f"{limit}: {problem}. The limit is {value:g}: `{limit}` under {setting} in the daemon's settings",
            field=limit,
        )
