"""A TCP proxy that breaks connections: between clients and a daemon, in a thread of its own.

A client has a port of its own here (`open_port`), so that each has its own connection: gRPC's channels of
one process and one address share theirs. Faults are per connection:

    drop        both ends are closed, in good order
    reset       both ends are reset
    cut         a part of the next bytes goes through, then both ends are reset
    delay       both directions stand still for a moment, then go on
    throttle    both directions are as slow as an old modem for a moment
    half_open   one direction is swallowed from here on, without notice; the other continues
    blackhole   the client's next connections are taken and never answered, for a moment
    linger      the client's end is reset; what it had sent arrives much later, when a new one is served
    duplicate   the client's first bytes are sent again: HTTP/2 must fail the connection

Within a connection TCP delivers each byte once and in order, so what is duplicated and reordered is
connections (linger), and bytes only where the protocol must notice (duplicate).
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Self, TypeVar

T = TypeVar("T")
KINDS = (
    "drop",
    "reset",
    "cut",
    "delay",
    "throttle",
    "half_open",
    "blackhole",
    "linger",
    "duplicate",
)
"""All faults."""
PREFACE = 24
"""The bytes with which every HTTP/2 client begins; a frame cannot begin with them."""
_READ = 65_536


class _Frames:
    """Counts HTTP/2 frames in what a client sends: whether the bytes so far end where one ends."""

    def __init__(self) -> None:
        self._left = PREFACE
        self._head = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        while data:
            if self._left:
                skipped = min(self._left, len(data))
                self._left -= skipped
                data = data[skipped:]
                continue
            wanted = 9 - len(self._head)
            self._head, data = self._head + data[:wanted], data[wanted:]
            if len(self._head) == 9:
                self._left, self._head = int.from_bytes(self._head[:3], "big"), b""

    @property
    def at_boundary(self) -> bool:
        """Whether a frame has just ended."""
        return not self._left and not self._head


class _Connection:
    """A client's connection, and the proxy's own to the daemon."""

    def __init__(self, port: int, client: asyncio.StreamWriter, daemon: asyncio.StreamWriter) -> None:
        self.port = port
        self.client = client
        self.daemon = daemon
        self.frames = _Frames()
        self.first = b""
        self.flowing = asyncio.Event()
        """Bytes wait until it is set."""
        self.flowing.set()
        self.rate = 0.0
        """Bytes a second, if throttled."""
        self.cut_after: int | None = None
        """So many more bytes, then a reset."""
        self.swallow: set[str] = set()
        """The directions that go nowhere: "up", "down"."""
        self.held: list[bytes] | None = None
        """What the client sent and is to arrive late."""
        self.duplicate = False
        """Whether the first bytes are to be sent again as soon as a frame ends."""
        self.spoiled = False
        """Whether it is broken, so that no other fault is needed."""

    def close(self, *, reset: bool) -> None:
        """Close both ends."""
        self.spoiled = True
        for writer in (self.client, self.daemon):
            _close(writer, reset=reset)
        self.flowing.set()


class FaultProxy:
    """Ports that lead to a daemon, and faults on the way. A context manager."""

    def __init__(self, upstream: str, *, seed: int = 0) -> None:
        """`upstream` is the daemon's HOST:PORT; the seed decides every choice left open."""
        host, _, port = upstream.rpartition(":")
        self._upstream = host, int(port)
        self._chance = random.Random(seed)  # noqa: S311  # a test's dice
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._servers: list[asyncio.Server] = []
        self._connections: set[_Connection] = set()
        self._black_until: dict[int, float] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.injected: Counter[str] = Counter()
        """How many faults of each kind hit a connection."""
        self.accepted = 0
        """How many connections clients made."""

    # ------------------------------------------------------------------- from the test's thread

    def open_port(self) -> str:
        """Return the address of a new port."""
        return f"127.0.0.1:{self._call(self._listen())}"

    def fault(self, kind: str, *, address: str | None = None, seconds: float | None = None) -> int:
        """Let a fault happen to all live connections, or those of one port; return to how many.

        Args:
            kind: one of `KINDS`.
            address: the port.
            seconds: how long it lasts, of those that pass. Default: a random moment.
        """
        assert kind in KINDS, kind

        async def inject() -> int:
            port = None if address is None else int(address.rpartition(":")[2])
            hit = [one for one in self._live() if port in (None, one.port)]
            for connection in hit:
                self._inject(kind, connection, seconds)
            return len(hit)

        return self._call(inject())

    def rage(self, *, pause_s: tuple[float, float], kinds: tuple[str, ...] = KINDS) -> Callable[[], None]:
        """Let faults happen at random, with random pauses between them, until the returned is called."""

        async def storm() -> None:
            while True:
                await asyncio.sleep(self._chance.uniform(*pause_s))
                if live := sorted(self._live(), key=lambda one: one.port):
                    self._inject(self._chance.choice(kinds), self._chance.choice(live), None)

        future = asyncio.run_coroutine_threadsafe(storm(), self._loop)

        def calm() -> None:
            future.cancel()

        return calm

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(30)

    # --------------------------------------------------------------------- in the proxy's thread

    async def _listen(self) -> int:
        port = 0

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._spawn(self._serve(port, reader, writer))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self._servers.append(server)
        return port

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _live(self) -> list[_Connection]:
        return [one for one in self._connections if not one.spoiled]

    async def _serve(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry a client's bytes to the daemon and back, until one of them has enough."""
        self.accepted += 1
        if (left := self._black_until.get(port, 0.0) - self._loop.time()) > 0:
            await asyncio.sleep(left)
            _close(writer, reset=True)
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        except OSError:  # the daemon is down
            _close(writer, reset=True)
            return
        connection = _Connection(port, writer, up_writer)
        self._connections.add(connection)
        pumps = [
            asyncio.ensure_future(self._pump("up", connection, reader, up_writer)),
            asyncio.ensure_future(self._pump("down", connection, up_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if connection.held is not None:  # the late bytes are on their way
                return
        finally:
            for pump in pumps:
                pump.cancel()
            if connection.held is None:
                connection.close(reset=False)
                self._connections.discard(connection)

    async def _pump(
        self, direction: str, connection: _Connection, reader: asyncio.StreamReader, to: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(_READ):
                await connection.flowing.wait()
                if direction in connection.swallow:
                    continue
                if direction == "up" and connection.held is not None:
                    connection.held.append(data)
                    continue
                if connection.cut_after is not None:
                    to.write(data[: connection.cut_after])
                    connection.close(reset=True)
                    return
                if connection.rate:
                    await asyncio.sleep(len(data) / connection.rate)
                to.write(data)
                if direction == "up":
                    self._look(connection, data)
                await to.drain()
        except OSError:
            pass

    def _look(self, connection: _Connection, data: bytes) -> None:
        """Keep the first bytes, and send them again if that is the fault and a frame has just ended."""
        connection.first += data[: PREFACE - len(connection.first)]
        connection.frames.feed(data)
        if connection.duplicate and connection.frames.at_boundary:
            connection.duplicate = False
            connection.daemon.write(connection.first)

    # ---------------------------------------------------------------------------------- faults

    def _inject(self, kind: str, connection: _Connection, seconds: float | None) -> None:
        self.injected[kind] += 1
        chance = self._chance
        match kind:
            case "drop" | "reset":
                connection.close(reset=kind == "reset")
            case "cut":
                connection.spoiled = True
                connection.cut_after = chance.randrange(1, 60)
            case "delay":
                connection.flowing.clear()
                self._later(seconds or chance.uniform(0.01, 0.3), connection.flowing.set)
            case "throttle":
                connection.rate = 20_000.0
                self._later(seconds or chance.uniform(0.05, 0.5), lambda: setattr(connection, "rate", 0.0))
            case "half_open":
                connection.spoiled = True
                connection.swallow.add(chance.choice(("up", "down")))
                self._later(seconds or chance.uniform(0.2, 3.0), lambda: connection.close(reset=True))
            case "blackhole":
                self._black_until[connection.port] = self._loop.time() + (seconds or chance.uniform(0.1, 1.5))
                connection.close(reset=True)
            case "linger":
                connection.spoiled = True
                connection.held = []
                self._spawn(self._deliver_late(connection, chance.uniform(0.005, 0.05), seconds))
            case "duplicate":
                connection.spoiled = connection.duplicate = True

    def _later(self, seconds: float, work: Callable[[], object]) -> None:
        self._loop.call_later(seconds, work)

    async def _deliver_late(self, connection: _Connection, hold_s: float, seconds: float | None) -> None:
        """Collect what a client sends, cut it off, and deliver what was collected once it has gone on."""
        await asyncio.sleep(hold_s)
        _close(connection.client, reset=True)
        await asyncio.sleep(seconds or self._chance.uniform(0.2, 1.0))
        for data in connection.held or ():
            connection.daemon.write(data)
        await asyncio.sleep(0.2)
        connection.close(reset=False)
        self._connections.discard(connection)

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.close(reset=True)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _close(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    """Close a socket, in good order or by a reset."""
    if reset and (raw := writer.get_extra_info("socket")) is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if reset:
        writer.transport.abort()
    else:
        writer.close()
