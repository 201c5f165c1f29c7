"""The calls of meta mode: each converts messages and calls the runs and `meta.apply`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from mlrs_proto import v1 as pb
from mlrs_server.auth.principal import current_caller
from mlrs_server.auth.roles import Role
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.meta.apply import Adaptation, Applied
from mlrs_server.meta.gradients import alignment_of
from mlrs_server.rpc import convert
from mlrs_server.runs.opener import RunOpener
from mlrs_server.telemetry.counts import AdviceCounts

AT_ONCE = 8
"""Meta updates of a message between two yields to the event loop: one or two milliseconds of work."""


class MetaService:
    """The calls of meta mode."""

    def __init__(self, opener: RunOpener, adaptation: Adaptation, counts: AdviceCounts) -> None:
        """Serve the meta updates of these runs, and count them in `counts`."""
        self._opener = opener
        self._adaptation = adaptation
        self._counts = counts

    async def adapt(self, request: pb.AdaptRequest) -> pb.AdaptResponse:
        """Apply a meta update."""
        applied = await self._adapt(request, request.alignment)
        return pb.AdaptResponse(result=convert.applied_to_proto(applied))

    async def adapt_gradients(
        self, messages: AsyncIterator[pb.AdaptGradientsRequest]
    ) -> pb.AdaptGradientsResponse:
        """Apply a meta update from two gradients."""
        header = convert.gradients_header_from_proto(await anext(messages, None))
        await self._handle(header.run_id)  # reports errors of the run before a gigabyte is sent
        count = header.element_count if header.HasField("element_count") else None
        alignment = await alignment_of(convert.pieces_from_proto(messages), count)
        applied = await self._adapt(header, alignment)
        return pb.AdaptGradientsResponse(result=convert.applied_to_proto(applied), alignment=alignment)

    async def adapt_all(self, request: pb.MetaUpdates) -> pb.StreamAdviceResponse:
        """Apply the meta updates in a message of a stream, in order.

        Raises:
            AdvisorError: the message is malformed, or the caller's role may not adapt.
        """
        caller = current_caller()
        caller.check_role(Role.ADAPT, "meta_updates")
        convert.check_updates(request)
        outcomes: list[Applied | AdvisorError] = []
        for index, update in enumerate(request.updates):
            if index and index % AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                step, loss = convert.update_from_proto(update)
                one = await self._adaptation.apply(
                    update.run_handle, caller.number, step, update.alignment, loss
                )
                outcomes.append(self._counted(one))
            except AdvisorError as error:
                if error.reason is Reason.QUEUE_FULL:  # later messages of the stream must not overtake it
                    raise
                outcomes.append(error)
        return convert.results_to_proto(outcomes, caller.tenant)

    async def _adapt(self, request: pb.AdaptRequest | pb.AdaptGradientsHeader, alignment: float) -> Applied:
        """Apply a meta update of a run, loading the run if it is not in memory."""
        step, loss = convert.update_from_proto(request)
        handle, tenant = await self._handle(request.run_id), current_caller().number
        return self._counted(await self._adaptation.apply(handle, tenant, step, alignment, loss))

    def _counted(self, applied: Applied) -> Applied:
        self._counts.note_update(applied.update)
        return applied

    async def _handle(self, run_id: str) -> int:
        return await self._opener.handle_of(current_caller().full(run_id))
