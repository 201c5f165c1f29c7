"""A StreamAdvice stream of the asyncio client: a queue of what to send, and a task that reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from mlrs.errors import DaemonError, MlrsError
from mlrs.ledger.answers import Answer
from mlrs.ledger.ledger import Ledger
from mlrs.protocol.conversation import Batch
from mlrs.wire.status import map_rpc_errors
from mlrs.wire.stream_messages import answer_from_proto, batch_to_proto


class AdviceStream:
    """One stream. The arguments are those of the threaded client's; callbacks run in the loop."""

    def __init__(
        self,
        start: Callable[[AsyncIterator[Any]], Any],
        take: Callable[[Ledger[Any]], list[Batch]],
        receive: Callable[[Answer], None],
        ended: Callable[[MlrsError | None], None],
        target: str,
    ) -> None:
        self._pokes: asyncio.Queue[Ledger[Any] | None] = asyncio.Queue()
        self._take, self._receive, self._ended, self._target = take, receive, ended, target
        self._call = start(self._messages())
        self._reader = asyncio.get_running_loop().create_task(self._read())

    def poke(self, ledger: Ledger[Any]) -> None:
        """Send what a run has to send; does not wait."""
        self._pokes.put_nowait(ledger)

    def half_close(self) -> None:
        """Half-close the stream; does not wait."""
        self._pokes.put_nowait(None)

    def cancel(self) -> None:
        """Cancel the stream."""
        self._call.cancel()

    async def close(self, timeout_s: float) -> None:
        """Half-close and read to the end; if that takes longer than `timeout_s`, cancel."""
        self.half_close()
        await asyncio.wait([self._reader], timeout=timeout_s)
        if not self._reader.done():
            self._call.cancel()
            await asyncio.wait([self._reader])

    async def _messages(self) -> AsyncIterator[Any]:
        while (ledger := await self._pokes.get()) is not None:
            while batches := self._take(ledger):
                for batch in batches:
                    yield batch_to_proto(batch)

    async def _read(self) -> None:
        error: MlrsError | None = None
        try:
            with map_rpc_errors(self._target):
                async for message in self._call:
                    if (answer := answer_from_proto(message)) is not None:
                        self._receive(answer)
        except MlrsError as failure:
            error = failure
        except asyncio.CancelledError:
            pass  # of the call, by `close`; or of the task, by a loop that ends
        except Exception as failure:  # noqa: BLE001 # callers wait for this task: it may not just die
            error = DaemonError(f"an answer could not be read: {failure!r}")
        finally:
            self._call.cancel()
            self.half_close()
            self._ended(error)
