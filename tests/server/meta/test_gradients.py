"""The alignment of two gradients that a stream brings in pieces."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence

import numpy as np

from mlrs_server.domain.gradients import ElementType, Piece
from mlrs_server.errors import Reason
from mlrs_server.meta.gradients import alignment_of
from tests.server.support import raises

F32, BF16 = ElementType.FLOAT32, ElementType.BFLOAT16


async def pieces(all_of_them: Sequence[Piece]) -> AsyncIterator[Piece]:
    """Yield pieces, as a stream does."""
    for piece in all_of_them:
        yield piece


async def test_pieces_that_do_not_fit_are_refused() -> None:
    """Vectors of different lengths, broken elements, and another count than was said are refused by field."""
    four, eight = np.ones(1, "<f4").tobytes(), np.ones(2, "<f4").tobytes()
    with raises(Reason.INVALID_FIELD, field="direction", match="same stretch"):
        await alignment_of(pieces([Piece(F32, eight, four)]), 0)
    with raises(Reason.INVALID_FIELD, field="validation_gradient", match="whole elements of 4"):
        await alignment_of(pieces([Piece(F32, four[:3], four)]), 0)
    with raises(Reason.INVALID_FIELD, field="direction", match="whole elements of 2"):
        await alignment_of(pieces([Piece(BF16, four, four[:3])]), 0)
    with raises(Reason.INVALID_FIELD, field="element_count", match="said 3 elements, and 2 came"):
        await alignment_of(pieces([Piece(F32, eight, eight)]), 3)
    with raises(Reason.INVALID_FIELD, field="element_count", match="2 or more"):
        await alignment_of(pieces([Piece(F32, eight, eight), Piece(F32, b"", b"")]), 1)
    assert await alignment_of(pieces([Piece(F32, eight, eight)]), 2) == 2.0
    assert await alignment_of(pieces([]), 0) == 0.0


async def test_what_is_not_finite_shows() -> None:
    """A NaN or an infinity in a gradient makes the alignment one, for the update to be refused."""
    bad = np.array([1.0, np.nan], "<f4").tobytes()
    assert math.isnan(await alignment_of(pieces([Piece(F32, bad, bad)]), 2))
