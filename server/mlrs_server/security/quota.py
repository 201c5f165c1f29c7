"""How many runs a tenant may have."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from mlrs_server.names import tenant_of
from mlrs_server.security.limits import Limits, Usage

FRESH_S = 60.0
"""How long a count is good: other replicas create runs too."""
REST = 20
"""So many times as long as a count took, none is made again: a tenant at its limit must not keep the store
busy."""


@dataclass(slots=True)
class _Count:
    runs: int
    counted: float
    """When, on the monotonic clock."""
    next: float
    """When it may be counted again."""


class RunQuota:
    """Knows roughly, and at the limit exactly, how many unfinished runs each tenant has."""

    def __init__(
        self, limits_of: Callable[[str], Limits], count_unfinished: Callable[[str], Awaitable[int]]
    ) -> None:
        """`count_unfinished` asks the store."""
        self._limits_of = limits_of
        self._count_unfinished = count_unfinished
        self._counts: dict[str, _Count] = {}

    async def take(self, names: Iterable[str]) -> None:
        """Count runs that are about to be created, by their full names.

        Raises:
            AdvisorError: their tenant would have more than it may; none is counted.
        """
        tenants: dict[str, int] = {}
        for name in names:
            tenant = tenant_of(name)
            tenants[tenant] = tenants.get(tenant, 0) + 1
        for tenant, more in tenants.items():  # all of one call are of one tenant
            limits = self._limits_of(tenant)
            count = await self._counted(tenant, more, limits.max_runs)
            if count.runs + more > limits.max_runs:
                problem = (
                    f"{count.runs} runs are not finished, and this call creates {more}; finish or delete some"
                )
                raise Usage(tenant, limits).exceeded("max_runs", limits.max_runs, problem)
            count.runs += more

    async def _counted(self, tenant: str, more: int, most: int) -> _Count:
        """Return a tenant's count: as it was, unless it is old, or says that there are too many."""
        count, began = self._counts.get(tenant), time.monotonic()
        if count is not None:
            is_old, is_full = began - count.counted > FRESH_S, count.runs + more > most
            if began < count.next or not (is_old or is_full):
                return count
        runs = await self._count_unfinished(tenant)
        ended = time.monotonic()
        count = self._counts[tenant] = _Count(runs, ended, ended + REST * (ended - began))
        return count
