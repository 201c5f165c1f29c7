"""What an advisor of the asyncio client has for meta mode beside its runs."""

from __future__ import annotations

from typing import Any

from mlrs_client import _arguments as check
from mlrs_client._adapting import UPLOAD_TIMEOUT_S
from mlrs_client._aio_connection import Connection
from mlrs_client._meta_calls import adapt, adapt_gradients
from mlrs_client._meta_types import Adaptation


class MetaAdvisor:
    """The unary calls of meta mode."""

    _connection: Connection

    async def adapt(
        self,
        id: str,  # noqa: A002 # what users call it
        step: int,
        alignment: float,
        *,
        validation_loss: float | None = None,
        timeout_s: float | None = None,
    ) -> Adaptation:
        """Make a meta update of a run that another process observes. See `mlrs_client.Advisor.adapt`."""
        call = adapt(id, step, alignment, validation_loss)
        limit_s = self._connection.timeout_s if timeout_s is None else check.timeout_s(timeout_s)
        return await self._connection.invoke(call, limit_s)

    async def adapt_gradients(
        self,
        id: str,  # noqa: A002 # what users call it
        step: int,
        validation_gradient: Any,
        direction: Any,
        *,
        data_type: str | None = None,
        validation_loss: float | None = None,
        timeout_s: float = UPLOAD_TIMEOUT_S,
    ) -> Adaptation:
        """Send both vectors of an update. See `mlrs_client.Advisor.adapt_gradients`."""
        call = adapt_gradients(id, step, validation_gradient, direction, data_type, validation_loss)
        return await self._connection.invoke(call, check.timeout_s(timeout_s))
