"""Upload of gradients: buffers of any size, split into messages."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlrs.errors import InvalidArgumentError
from mlrs.values.checks import wrong
from mlrs_proto import v1 as pb

PIECE_BYTES = 512 * 1024
"""The part of each vector in a message, in bytes."""
_TYPES: dict[str, tuple[pb.DataType.ValueType, int]] = {
    "float32": (pb.DATA_TYPE_FLOAT32, 4),
    "float16": (pb.DATA_TYPE_FLOAT16, 2),
    "bfloat16": (pb.DATA_TYPE_BFLOAT16, 2),
}
"""The element types that the contract knows, each with its size in bytes."""
_BY_FORMAT = {"f": "float32", "e": "float16"}


@dataclass(frozen=True, slots=True)
class Stretch:
    """The same part of both vectors, as it lies in memory."""

    data_type: str
    """The elements' type."""
    gradient: memoryview
    """The bytes of the validation gradient."""
    direction: memoryview
    """The same number of bytes of the direction."""


def stretches(gradient: object, direction: object, data_type: object) -> list[Stretch]:
    """Return the parts of two vectors, each a buffer or several; nothing is copied.

    Args:
        gradient: an object with a buffer (an array of NumPy, `array.array`, bytes), or a sequence of them.
        direction: buffers of the same kind and the same sizes.
        data_type: the type of the elements, for raw bytes: `float32`, `float16` or `bfloat16`.
    """
    if data_type is not None and data_type not in _TYPES:
        raise wrong("data_type", f"must be one of {', '.join(_TYPES)}", data_type)
    ours, theirs = _buffers("validation_gradient", gradient), _buffers("direction", direction)
    if len(ours) != len(theirs):
        raise InvalidArgumentError(
            f"direction must be as many buffers as validation_gradient, {len(ours)}; is {len(theirs)}",
            field="direction",
        )
    found = [
        _stretch(one, other, str(data_type) if data_type else None)
        for one, other in zip(ours, theirs, strict=True)
    ]
    if not any(len(stretch.gradient) for stretch in found):
        raise InvalidArgumentError("validation_gradient is empty", field="validation_gradient")
    return found


def requests(header: pb.AdaptGradientsHeader, parts: Sequence[Stretch]) -> Iterator[pb.AdaptGradientsRequest]:
    """Return the messages of an upload: the header, then pieces of both vectors.

    Small buffers share a message.
    """
    header.element_count = sum(len(part.gradient) // _TYPES[part.data_type][1] for part in parts)
    yield pb.AdaptGradientsRequest(header=header)
    for data_type, alike in itertools.groupby(parts, key=lambda part: part.data_type):
        for piece in _pieces(alike):
            yield pb.AdaptGradientsRequest(
                chunk=pb.GradientChunk(
                    data_type=_TYPES[data_type][0],
                    validation_gradient=b"".join(gradient for gradient, _ in piece),
                    direction=b"".join(direction for _, direction in piece),
                )
            )


def _pieces(parts: Iterable[Stretch]) -> Iterator[list[tuple[memoryview, memoryview]]]:
    """Return the content of each message: views of at most `PIECE_BYTES` of each vector."""
    piece: list[tuple[memoryview, memoryview]] = []
    space = PIECE_BYTES
    for part in parts:
        start = 0
        while start < len(part.gradient):
            end = min(start + space, len(part.gradient))
            piece.append((part.gradient[start:end], part.direction[start:end]))
            space -= end - start
            start = end
            if not space:
                yield piece
                piece, space = [], PIECE_BYTES
    if piece:
        yield piece


def _buffers(name: str, value: Any) -> list[memoryview]:
    if isinstance(value, (list, tuple)):
        return [_buffer(f"{name}[{index}]", one) for index, one in enumerate(value)]
    return [_buffer(name, value)]


def _buffer(name: str, value: Any) -> memoryview:
    try:
        view = memoryview(value)
    except TypeError:
        raise wrong(
            name, "must be a buffer, such as a NumPy array (for a tensor, tensor.cpu().numpy())", value
        ) from None
    if not view.c_contiguous:
        raise wrong(name, "must lie in one piece; pass numpy.ascontiguousarray(it)", value)
    return view


def _stretch(one: memoryview, other: memoryview, data_type: str | None) -> Stretch:
    found = {_BY_FORMAT.get(view.format.lstrip("<=@"), data_type) for view in (one, other)}
    if data_type is not None:
        found = {data_type}
    if found - {None} == set() or len(found) > 1 or None in found:
        raise InvalidArgumentError(
            "validation_gradient and direction must both hold float32 or float16; are of formats"
            f" {one.format!r} and {other.format!r}. Convert them, or name what raw bytes are as data_type=",
            field="data_type",
        )
    (kind,) = found
    assert kind is not None  # noqa: S101 # for the type checker
    if one.nbytes != other.nbytes or one.nbytes % _TYPES[kind][1]:
        raise InvalidArgumentError(
            f"direction must be as long as validation_gradient, and both whole numbers of {kind}; they are"
            f" {other.nbytes} and {one.nbytes} bytes",
            field="direction",
        )
    return Stretch(kind, _flat(one), _flat(other))


def _flat(view: memoryview) -> memoryview:
    return view.cast("B") if view.nbytes else memoryview(b"")
