"""Conversion of meta updates, their results, and gradients in chunks."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence

from mlrs_core.adapting import MetaOutcome
from mlrs_proto import v1 as pb
from mlrs_server.domain.gradients import ElementType, Piece
from mlrs_server.domain.updates import MetaUpdate
from mlrs_server.errors import AdvisorError, invalid_field
from mlrs_server.meta.apply import Applied
from mlrs_server.rpc.convert.advice import entry_error
from mlrs_server.rpc.convert.runs import step_from_proto

MAX_UPDATES = 1024
"""The most meta updates in a StreamAdvice message."""
_ELEMENT_TYPES: frozenset[int] = frozenset(ElementType)
_CLIPPED = frozenset({MetaOutcome.CLIPPED, MetaOutcome.CLIPPED_AND_SCALED})
_SCALED = frozenset({MetaOutcome.SCALED, MetaOutcome.CLIPPED_AND_SCALED})


def update_from_proto(
    message: pb.AdaptRequest | pb.AdaptGradientsHeader | pb.MetaUpdate,
) -> tuple[int, float | None]:
    """Return the step and the validation loss of a meta update; the loss is `None` if it is NaN or unset.

    Raises:
        AdvisorError: the step is out of range.
    """
    loss = message.validation_loss if message.HasField("validation_loss") else math.nan
    return step_from_proto(message.step, "step"), None if math.isnan(loss) else loss


def check_updates(message: pb.MetaUpdates) -> None:
    """Check the number of meta updates in a StreamAdvice message.

    Raises:
        AdvisorError: there are too many.
    """
    if len(message.updates) > MAX_UPDATES:
        raise invalid_field(
            "meta_updates",
            f"a message holds at most {MAX_UPDATES}, this one {len(message.updates)}; split it",
        )


def applied_to_proto(applied: Applied) -> pb.MetaResult:
    """Return the result of a meta update as a message."""
    update = applied.update
    return pb.MetaResult(
        updates=applied.updates,
        learning_rate=update.lr,
        outcome=_outcome_to_proto(update.outcome),
        log_change=update.log_change,
        clipped=update.outcome in _CLIPPED,
        scaled=update.outcome in _SCALED,
    )


def meta_record_to_proto(update: MetaUpdate) -> pb.MetaRecord:
    """Return a meta update of a run's record as a message."""
    return pb.MetaRecord(
        step=update.step,
        alignment=update.alignment,
        validation_loss=update.validation_loss,
        outcome=_outcome_to_proto(update.outcome),
        learning_rate=update.lr,
        log_change=update.log_change,
        clipped=update.outcome in _CLIPPED,
        scaled=update.outcome in _SCALED,
    )


def _outcome_to_proto(outcome: int) -> pb.MetaOutcome.ValueType:
    return pb.META_OUTCOME_IDLE if outcome == MetaOutcome.IDLE else pb.META_OUTCOME_APPLIED


def results_to_proto(outcomes: Sequence[Applied | AdvisorError], tenant: str) -> pb.StreamAdviceResponse:
    """Return the results of a message's meta updates as a message with the tenant's bare names."""
    message = pb.StreamAdviceResponse()
    results = message.meta_results
    results.SetInParent()
    for index, one in enumerate(outcomes):
        result = results.results.add()
        if isinstance(one, AdvisorError):
            results.errors.append(entry_error(index, one, tenant))
        else:
            result.CopyFrom(applied_to_proto(one))
    return message


def gradients_header_from_proto(message: pb.AdaptGradientsRequest | None) -> pb.AdaptGradientsHeader:
    """Return the header of a stream of gradients.

    Raises:
        AdvisorError: the message is not a header.
    """
    if message is None or message.WhichOneof("kind") != "header":
        raise invalid_field(
            "header", "the first message must be the header, and the next ones chunks of both vectors"
        )
    return message.header


async def pieces_from_proto(messages: AsyncIterator[pb.AdaptGradientsRequest]) -> AsyncIterator[Piece]:
    """Yield the chunks of both vectors in a stream's messages.

    Raises:
        AdvisorError: a message is not a chunk, or its element type is unknown.
    """
    async for message in messages:
        if message.WhichOneof("kind") != "chunk":
            raise invalid_field("chunk", "every message after the first must be a chunk of both vectors")
        chunk = message.chunk
        if chunk.data_type not in _ELEMENT_TYPES:
            raise invalid_field("data_type", f"must be one of the contract's DataType, is {chunk.data_type}")
        yield Piece(ElementType(chunk.data_type), chunk.validation_gradient, chunk.direction)
