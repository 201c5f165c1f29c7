"""What health checks say of the store; advice goes on without it, so the rest of the daemon stays healthy."""

from __future__ import annotations

import asyncio

from grpc_health.v1 import health, health_pb2

STORE = "mlrs.v1.Store"
"""The name that the store has for health checks."""
_STATUS = {
    True: health_pb2.HealthCheckResponse.SERVING,
    False: health_pb2.HealthCheckResponse.NOT_SERVING,
}


class StoreHealth:
    """Passes on whether flushes work, in order."""

    def __init__(self, checks: health.aio.HealthServicer) -> None:
        """`checks` answers health checks."""
        self._checks = checks
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, works: bool) -> None:  # noqa: FBT001  # what it is told is this alone
        """Say whether flushes work from now on."""
        task = asyncio.get_running_loop().create_task(self._set(works=works))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _set(self, *, works: bool) -> None:
        async with self._lock:
            await self._checks.set(STORE, _STATUS[works])
