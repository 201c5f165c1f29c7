"""The limit on a tenant's unfinished runs."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from mlrs_server.auth.limits import Limits, Usage
from mlrs_server.tenancy import tenant_of

FRESH_S = 60.0
"""How long a count is used before the store is asked again: other replicas create runs too."""
REST = 20
"""After a count, none is made for this many times as long as it took: a tenant at its limit must not keep the
store busy."""


@dataclass(slots=True)
class _Count:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while runs are counted and reserved: of two calls, one sees what the other has reserved."""
    runs: int = 0
    """Runs that are stored or reserved."""
    pending: int = 0
    """Reserved runs, which are not stored yet."""
    counted: float = -math.inf
    """When the store was asked last, on the monotonic clock."""
    next: float = -math.inf
    """When the store may be asked again, on the monotonic clock."""


class RunQuota:
    """Counts each tenant's unfinished runs: approximately, and exactly once the limit is near."""

    def __init__(
        self, limits_of: Callable[[str], Limits], count_unfinished: Callable[[str], Awaitable[int]]
    ) -> None:
        """`count_unfinished` asks the store for the number of a tenant's unfinished runs."""
        self._limits_of = limits_of
        self._count_unfinished = count_unfinished
        self._counts: defaultdict[str, _Count] = defaultdict(_Count)

    @asynccontextmanager
    async def reserved(self, names: Iterable[str]) -> AsyncIterator[None]:
        """Reserve quota for runs, by their full names; the block stores them as unfinished.

        Raises:
            AdvisorError: their tenant would have more runs than it may; nothing is reserved.
        """
        async with AsyncExitStack() as reservations:
            for tenant, more in Counter(map(tenant_of, names)).items():  # all of one call are of one tenant
                await reservations.enter_async_context(self._reserved(tenant, more))
            yield

    @asynccontextmanager
    async def _reserved(self, tenant: str, more: int) -> AsyncIterator[None]:
        limits, count = self._limits_of(tenant), self._counts[tenant]
        async with count.lock:
            await self._refresh(tenant, count, more, limits.max_runs)
            if count.runs + more > limits.max_runs:
                problem = (
                    f"{count.runs} runs are not finished, and this call creates, or takes up again, {more}; "
                    "finish or delete some"
                )
                raise Usage(tenant, limits).exceeded("max_runs", limits.max_runs, problem)
            count.runs += more
            count.pending += more
        try:
            yield
        finally:
            count.pending -= more

    async def _refresh(self, tenant: str, count: _Count, more: int, most: int) -> None:
        """Count a tenant's runs again if the count is old or would exceed the limit."""
        began = time.monotonic()
        is_old, is_full = began - count.counted > FRESH_S, count.runs + more > most
        if began < count.next or not (is_old or is_full):
            return
        pending = count.pending  # the store may count some of them too: too many is safer than too few
        count.runs = pending + await self._count_unfinished(tenant)
        count.counted = time.monotonic()
        count.next = count.counted + REST * (count.counted - began)
