"""Inputs that nobody would send: bytes changed here and there, and messages of extreme values."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

WORDS = (
    b"\x00" * 8,
    b"\xff" * 8,
    b"\x7f" + b"\xff" * 7,
    b"\x80" + b"\x00" * 7,
    struct.pack("<d", float("nan")),
    struct.pack("<d", float("inf")),
    struct.pack("<d", 5e-324),
    b"{" * 64,
    b"[" * 2000,
    b"9" * 400,
    b"\xf0\x28\x8c\x28",
    b"../../../etc/passwd",
    b'"\\u0000',
)
"""What parsers have stumbled over."""
NUMBERS = (0, 1, -1, 2, 127, 128, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 5e-324, 1e-30, 1e30, 1e308, -1e308, float("nan"), float("inf"), -float("inf"))
TEXTS = (
    "",
    "a",
    "run-1",
    "run-2",
    "x" * 256,
    "x" * 257,
    "\x00",
    "../x",
    "ü",
    "a b",
    "\U0010ffff",
    "mlr-snet@" + "0" * 64,
)


def mutated(data: bytes, chance: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """Return bytes with one to four changes: flips, cuts, repeats, strange words, pieces of others."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(out))
        match chance.randrange(7):
            case 0 if out:
                out[at - 1] ^= 1 << chance.randrange(8)
            case 1 if out:
                out[at - 1] = chance.randrange(256)
            case 2:
                del out[at : at + chance.randint(1, 1 + len(out) // 4)]
            case 3:
                out[at:at] = out[at : at + chance.randint(1, 32)] * chance.randint(1, 4)
            case 4:
                word = chance.choice(WORDS)
                out[at : at + chance.choice((0, len(word)))] = word
            case 5:
                out[at:at] = chance.randbytes(chance.randint(1, 16))
            case _ if others:
                other = chance.choice(others)
                start = chance.randint(0, len(other))
                out[at:] = other[start:]
    return bytes(out)


def extreme(message: Message, chance: random.Random, *, depth: int = 0) -> Message:
    """Fill a message with values at the edges of their types; return it."""
    for field in message.DESCRIPTOR.fields:
        if chance.random() < 0.5:
            continue
        if field.is_repeated:
            count = chance.choice((1, 2, 3, 17))
            values = [_value(field, chance, depth) for _ in range(count)]
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                for entry in values:
                    getattr(message, field.name)[entry.key] = entry.value
            elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
                for value in values:
                    getattr(message, field.name).add().CopyFrom(value)
            else:
                getattr(message, field.name).extend(values)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            getattr(message, field.name).CopyFrom(_value(field, chance, depth))
        else:
            setattr(message, field.name, _value(field, chance, depth))
    return message


def _value(field: FieldDescriptor, chance: random.Random, depth: int) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        empty = field.message_type._concrete_class()
        return extreme(empty, chance, depth=depth + 1) if depth < 4 else empty
    if field.type == FieldDescriptor.TYPE_BYTES:
        return chance.randbytes(chance.randint(0, 64))
    if kind in _RANGES:
        low, high = _RANGES[kind]
        return min(max(chance.choice(NUMBERS), low), high)
    return chance.choice(_CHOICES[kind])


_CHOICES: dict[int, Sequence[Any]] = {
    FieldDescriptor.CPPTYPE_DOUBLE: FLOATS,
    FieldDescriptor.CPPTYPE_FLOAT: FLOATS,
    FieldDescriptor.CPPTYPE_BOOL: (False, True),
    FieldDescriptor.CPPTYPE_STRING: TEXTS,
    FieldDescriptor.CPPTYPE_ENUM: (0, 1, 2, 3, 10, 11, 2**31 - 1, -1),
}
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
