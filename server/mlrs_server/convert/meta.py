"""Meta updates, their results, and gradients in pieces."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence

from mlrs_proto import v1 as pb
from mlrs_server.adapting.gradients import ElementType, Piece
from mlrs_server.adapting.making import Made
from mlrs_server.convert.advice import entry_error
from mlrs_server.convert.runs import step_from
from mlrs_server.errors import AdvisorError, invalid_field

MAX_UPDATES = 1024
"""The most meta updates in one."""
_ELEMENT_TYPES: frozenset[int] = frozenset(ElementType)


def update_from(message: pb.AdaptRequest | pb.MetaUpdate) -> tuple[int, float | None]:
    """Return the step of a meta update, and the validation loss that was sent with it; NaN counts as none.

    Raises:
        AdvisorError: the step is out of range.
    """
    loss = message.validation_loss if message.HasField("validation_loss") else math.nan
    return step_from(message.step, "step"), None if math.isnan(loss) else loss


def check_updates(message: pb.StreamAdviceRequest) -> None:
    """Check a stream's message that has meta updates.

    Raises:
        AdvisorError: it has too many, or observations too.
    """
    if len(message.updates) > MAX_UPDATES:
        raise invalid_field(
            "updates", f"a message holds at most {MAX_UPDATES}, this one {len(message.updates)}; split it"
        )
    if message.steps or message.run_handles or message.losses:
        raise invalid_field(
            "updates", "a message has observations or meta updates; send one message for each, in their order"
        )


def made_to(made: Made) -> pb.AdaptResponse:
    """Return what became of a meta update as a message."""
    update = made.update
    return pb.AdaptResponse(
        updates=made.updates,
        learning_rate=update.lr,
        outcome=pb.MetaOutcome.ValueType(update.outcome),
        log_change=update.log_change,
    )


def adaptations_to(made: Sequence[Made | AdvisorError], tenant: str) -> pb.StreamAdviceResponse:
    """Return what became of a message's meta updates as a message to a tenant."""
    message = pb.StreamAdviceResponse()
    adaptations = message.adaptations
    for index, one in enumerate(made):
        result = adaptations.results.add()
        if isinstance(one, AdvisorError):
            adaptations.errors.append(entry_error(index, one, tenant))
        else:
            result.CopyFrom(made_to(one))
    return message


def gradients_header_from(message: pb.AdaptGradientsRequest | None) -> tuple[pb.AdaptRequest, int]:
    """Return the header of a stream of gradients, and how many elements are to come; 0: not said.

    Raises:
        AdvisorError: the message is not a header, or says what the gradients are to say.
    """
    if message is None or message.WhichOneof("kind") != "header":
        raise invalid_field(
            "header", "the first message must be the header, and the next ones pieces of both vectors"
        )
    if message.header.alignment:
        raise invalid_field("header.alignment", "is what the gradients give; leave it out, or call Adapt")
    return message.header, message.element_count


async def pieces_from(messages: AsyncIterator[pb.AdaptGradientsRequest]) -> AsyncIterator[Piece]:
    """Yield the pieces in a stream's messages.

    Raises:
        AdvisorError: a message is none, or of an unknown type.
    """
    async for message in messages:
        if message.WhichOneof("kind") != "chunk":
            raise invalid_field("chunk", "every message after the first must be a piece of both vectors")
        chunk = message.chunk
        if chunk.data_type not in _ELEMENT_TYPES:
            raise invalid_field("data_type", f"must be one of the contract's DataType, is {chunk.data_type}")
        yield Piece(ElementType(chunk.data_type), chunk.validation_gradient, chunk.direction)
