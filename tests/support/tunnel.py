"""A way to a server that can be cut silently: neither side is notified, and no byte gets through."""

from __future__ import annotations

import asyncio
import threading
from typing import Self


class Tunnel:
    """Forwards connections from a port of its own, in a thread of its own."""

    def __init__(self, port: int) -> None:
        """Lead to a port of this machine."""
        self._upstream = port
        self._open = asyncio.Event()
        self._open.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tunnel", daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    def cut(self) -> None:
        """Let nothing through: what is sent is kept, new connections are taken and get no answer."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def heal(self) -> None:
        """Let new connections through; those of before are reset, as after a long cut."""
        self._loop.call_soon_threadsafe(self._heal)

    def _heal(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._open.set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        await self._open.wait()
        there, back = await asyncio.open_connection("127.0.0.1", self._upstream)
        self._writers.add(back)
        await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        self._writers -= {writer, back}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def _close(self) -> None:
        self._heal()
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
