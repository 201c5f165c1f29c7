"""The alignment of two gradients that a stream brings in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from mlrs_server.domain.gradients import Piece, RunningDot
from mlrs_server.errors import invalid_field


async def alignment_of(pieces: AsyncIterator[Piece], element_count: int | None) -> float:
    """Return the dot product of two vectors.

    Args:
        pieces: pieces of both vectors, in order.
        element_count: the number of elements that each must have, where it is known.

    Raises:
        AdvisorError: the pieces are malformed, or the number of elements is another.
    """
    dot = RunningDot()
    async for piece in pieces:
        await asyncio.to_thread(dot.add, piece)  # other calls are answered meanwhile
        if element_count is not None and dot.elements > element_count:
            break
    if element_count is not None and dot.elements != element_count:
        came = f"{dot.elements} or more" if dot.elements > element_count else str(dot.elements)
        raise invalid_field(
            "element_count", f"said {element_count} elements, and {came} came; nothing was changed"
        )
    return dot.total
