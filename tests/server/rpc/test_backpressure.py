"""Flow control: a client that does not read does not make memory grow."""

from __future__ import annotations

import asyncio
import resource
from contextlib import suppress
from pathlib import Path

import pytest

from mlrs_proto import v1 as pb
from tests.server.support import LOSSES, advised, channel, create, service

ENTRIES = 2000
"""Of a message: an answer of about 20 KB."""
MANY = 5000
"""Messages whose answers would take 100 MB."""


def resident_bytes() -> int:
    """Return how much memory this process, client and daemon, takes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


async def test_a_client_that_never_reads_costs_a_bounded_amount(tmp_path: Path, model_file: Path) -> None:
    """Its messages wait at the client once its answers pile up; memory does not grow, others are served."""
    async with service(tmp_path / "d", model_file) as (stub, address):
        handle = await create(stub, "greedy", horizon=10)
        greedy = stub.StreamAdvice()
        message = pb.StreamAdviceRequest(
            observations=pb.Observations(
                run_handles=[handle] * ENTRIES, steps=[0] * ENTRIES, losses=[2.0] * ENTRIES
            )
        )
        before, sent = resident_bytes(), 0
        with suppress(TimeoutError):
            while sent < MANY:
                await asyncio.wait_for(greedy.write(message), 2.0)
                sent += 1
        assert 0 < sent < MANY / 10
        assert resident_bytes() - before < 64 * 2**20
        async with channel(address) as other:
            await create(other, "modest", horizon=10)
            lrs = await asyncio.wait_for(advised(other, "modest", LOSSES[:20]), 10)
        assert len(lrs) == 20


async def test_a_client_that_goes_away_is_no_defect(
    tmp_path: Path, model_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A stream cancelled while the daemon writes to it leaves no error in the log, and no losses."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        handle = await create(stub, "greedy", horizon=10)
        greedy = stub.StreamAdvice()
        message = pb.StreamAdviceRequest(
            observations=pb.Observations(
                run_handles=[handle] * ENTRIES, steps=[0] * ENTRIES, losses=[2.0] * ENTRIES
            )
        )
        with suppress(TimeoutError):
            while True:
                await asyncio.wait_for(greedy.write(message), 1.0)
        greedy.cancel()
        assert await asyncio.wait_for(advised(stub, "greedy", [2.0]), 10)
    output = "".join(capfd.readouterr())
    assert "internal_error" not in output
    assert "Traceback" not in output


async def test_a_client_that_reads_late_gets_every_answer(tmp_path: Path, model_file: Path) -> None:
    """Answers that had to wait for their reader are all there, in order, when it comes."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        handle = await create(stub, "late", horizon=10)
        stream = stub.StreamAdvice()

        async def write() -> None:
            for step in range(1000):
                entry = pb.StreamAdviceRequest(
                    observations=pb.Observations(
                        run_handles=[handle] * ENTRIES, steps=[step] * ENTRIES, losses=[1.0 + step] * ENTRIES
                    )
                )
                await stream.write(entry)
            await stream.done_writing()

        writing = asyncio.create_task(write())
        await asyncio.wait([writing], timeout=1.0)
        assert not writing.done()
        reasons = [list(reply.advice.reasons) async for reply in stream]
        await writing
        first, again = pb.ADVICE_REASON_FRESH, pb.ADVICE_REASON_REPLAYED
        assert reasons == [[first] + [again] * (ENTRIES - 1)] * 1000
