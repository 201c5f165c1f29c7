"""Observations as bytes: what a client sends, made without a message object, so that it costs little.

Loss columns repeat after COLUMNS steps. How long the arithmetic takes does not depend on them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from mlrs_proto import v1 as pb

COLUMNS = 16
"""Different columns of losses."""
OBSERVATIONS = pb.StreamAdviceRequest.DESCRIPTOR.fields_by_name["observations"].number
HANDLES, STEPS, LOSSES = (
    pb.Observations.DESCRIPTOR.fields_by_name[name].number for name in ("run_handles", "steps", "losses")
)
"""The numbers of the messages' fields."""


def losses_of(runs: int) -> npt.NDArray[np.float64]:
    """Return losses of runs, (COLUMNS, runs): about ln 10, with noise."""
    return np.random.default_rng(0).normal(np.log(10), 0.1, (COLUMNS, runs))


class Messages:
    """The messages of some runs that take their steps together, an entry a run."""

    def __init__(self, handles: Sequence[int]) -> None:
        """Prepare all but the steps."""
        count = len(handles)
        self._count = count
        self._head = _field(HANDLES, struct.pack(f"<{count}Q", *handles))
        self._tails = [_field(LOSSES, column.astype("<f8").tobytes()) for column in losses_of(count)]

    def at(self, step: int) -> bytes:
        """Return the message of a step."""
        columns = self._head + _steps(step, self._count) + self._tails[step % COLUMNS]
        return _field(OBSERVATIONS, columns)


def check(reply: bytes, entries: int) -> None:
    """Check that a reply answers every entry; an error among them would be cheaper than an answer."""
    response = pb.StreamAdviceResponse.FromString(reply)
    assert response.WhichOneof("kind") == "advice", response
    assert len(response.advice.learning_rates) == entries, response
    assert not response.advice.errors, response.advice.errors[0]


@cache
def _steps(step: int, count: int) -> bytes:
    return _field(STEPS, _varint(step) * count)


def _field(number: int, content: bytes) -> bytes:
    """Return a field that holds bytes, or numbers in a row."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    sent = bytearray()
    while value > 0x7F:
        sent.append(value & 0x7F | 0x80)
        value >>= 7
    sent.append(value)
    return bytes(sent)
