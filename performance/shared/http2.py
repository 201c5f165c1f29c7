"""Just enough of HTTP/2 for a stream of small gRPC messages: a fifth of what gRPC's own client costs.

One stream to a connection, one message on its way at a time, both far within the windows that the server
opens, so flow control is left to it. Everything else that it asks of a client is done: settings and pings are
acknowledged.
"""

from __future__ import annotations

import asyncio
import struct
from typing import cast

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_HEADERS, END_STREAM, ACK = 0x4, 0x1, 0x1
MAX_WINDOW = 2**31 - 1
INITIAL_WINDOW_SIZE = 4
"""The setting's number."""


class RawStream(asyncio.Protocol):
    """A connection with one open stream, which takes and gives bytes."""

    def __init__(self, method: str) -> None:
        """`method` is the path of the RPC."""
        self._method = method
        self._received = bytearray()
        self._message = bytearray()
        self._reply: asyncio.Future[bytes] | None = None

    @classmethod
    async def open(cls, address: str, method: str) -> RawStream:
        """Connect, and open a stream."""
        loop = asyncio.get_running_loop()
        host, _, port = address.rpartition(":")
        _, stream = await loop.create_connection(lambda: cls(method), host, int(port))
        return stream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open the stream."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not one by its class
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": self._method,
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        self._transport.write(
            PREFACE
            + _frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, MAX_WINDOW))
            + _frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", MAX_WINDOW - 65_535))
            + _frame(HEADERS, END_HEADERS, 1, b"".join(map(_header, fields, fields.values())))
        )

    def connection_lost(self, error: Exception | None) -> None:
        """Say so to who waits."""
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error or ConnectionError("the server hung up"))

    async def exchange(self, message: bytes) -> bytes:
        """Send a message and wait for its answer."""
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(_frame(DATA, 0, 1, b"\0" + len(message).to_bytes(4) + message))
        return await self._reply

    def data_received(self, data: bytes) -> None:
        """Parse frames."""
        self._received += data
        received = self._received
        while len(received) >= 9 and len(received) >= 9 + (size := int.from_bytes(received[:3])):
            self._take(received[3], received[4], bytes(received[9 : 9 + size]))
            del received[: 9 + size]

    def _take(self, kind: int, flags: int, content: bytes) -> None:
        if kind == DATA:
            self._message += content
            if len(self._message) >= 5 and len(self._message) >= 5 + int.from_bytes(self._message[1:5]):
                assert self._reply is not None
                self._reply.set_result(bytes(self._message[5:]))
                self._message.clear()
        elif kind in {SETTINGS, PING} and not flags & ACK:
            self._transport.write(_frame(kind, ACK, 0, content if kind == PING else b""))
        elif kind in {RST_STREAM, GOAWAY} or (kind == HEADERS and flags & END_STREAM):
            self.connection_lost(ConnectionError(f"the server ended the stream: {content!r}"))

    def close(self) -> None:
        """Hang up."""
        self._transport.close()


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return struct.pack(">BHBBI", len(content) >> 16, len(content) & 0xFFFF, kind, flags, stream) + content


def _header(name: str, value: str) -> bytes:
    """Return a header as a literal that is not indexed."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
