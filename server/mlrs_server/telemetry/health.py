"""Health checks of the store. Advice works without it, so the services stay healthy when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from grpc_health.v1 import health, health_pb2

STORE = "mlrs.v1.Store"
"""The name of the store in health checks."""
_STATUS = {
    True: health_pb2.HealthCheckResponse.SERVING,
    False: health_pb2.HealthCheckResponse.NOT_SERVING,
}


class StoreHealth:
    """The health of the store, as reported by its users: it works if none of them reports a failure."""

    def __init__(self) -> None:
        self._failing: set[str] = set()
        self._checks: health.aio.HealthServicer | None = None
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def works(self) -> bool:
        """Whether no user reports a failure; on any thread."""
        return not self._failing

    async def serve(self, checks: health.aio.HealthServicer) -> None:
        """Set the status of the store in health checks, now and at each change."""
        self._checks = checks
        await self._publish()

    def reporter(self, user: str) -> Callable[[bool], None]:
        """Return a function with which a user of the store reports whether the store works for it."""

        def report(works: bool) -> None:  # noqa: FBT001  # it takes nothing else
            before = self.works
            (self._failing.discard if works else self._failing.add)(user)
            if self.works != before:
                task = asyncio.get_running_loop().create_task(self._publish())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        return report

    async def _publish(self) -> None:
        async with self._lock:  # the last task publishes the newest status
            if self._checks is not None:
                await self._checks.set(STORE, _STATUS[self.works])
