"""Metrics and health checks."""

from __future__ import annotations

import asyncio
import math
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlrs_proto import v1 as pb
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.live import journal
from mlrs_server.telemetry import metrics as telemetry_metrics
from mlrs_server.telemetry.health import STORE
from tests.server.support import FailingStore, columns, create, raises, refused, service
from tests.server.test_daemon import NOT_SERVING, SERVING, health
from tests.support.postgres import PostgresServer

TIMEOUT = 20


@pytest.fixture
def metrics_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the addresses at which daemons of this process serve metrics."""
    addresses: list[str] = []
    real = telemetry_metrics.serving_metrics

    @contextmanager
    def noting(collector: Any, listen: str | None) -> Iterator[str | None]:
        with real(collector, listen) as address:
            if address is not None:
                addresses.append(address)
            yield address

    monkeypatch.setattr(telemetry_metrics, "serving_metrics", noting)
    return addresses


async def scraped(address: str) -> dict[tuple[str, str], float]:
    """Return the metrics as Prometheus reads them: values by name and reason."""

    def read() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=TIMEOUT) as answer:
            text: str = answer.read().decode()
            return text

    text = await asyncio.to_thread(read)
    return {
        (sample.name, sample.labels.get("reason", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_count_what_happened(
    tmp_path: Path, model_file: Path, stores: list[FailingStore], metrics_at: list[str]
) -> None:
    """Answers by reason, refusals by reason, runs, streams and flushes are counted."""
    settings = {"metrics": "127.0.0.1:0", "flush_interval_s": 0.01}
    async with service(tmp_path / "d", model_file, **settings) as (stub, _):
        one, two = await create(stub, "a"), await create(stub, "b")
        call: Any = stub.StreamAdvice(timeout=TIMEOUT)
        for message in (
            columns((one, 0, 1.0), (two, 0, 1.0)),
            columns((one, 0, 1.0), (one, 1, math.nan), (two, 1, 2.0), (two, 9, 1.0), (7, 0, 1.0)),
        ):
            await call.write(message)
            await call.read()
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.GetRun(pb.GetRunRequest(run_id="nobody"))  # type: ignore[misc]
        async with asyncio.timeout(TIMEOUT):
            figures = await scraped(metrics_at[0])
            while figures["mlrs_unflushed_answers", ""]:
                figures = await scraped(metrics_at[0])
        assert figures["mlrs_advice_total", "fresh"] == 3
        assert figures["mlrs_advice_total", "held"] == 1
        assert figures["mlrs_advice_total", "replayed"] == 1
        assert figures["mlrs_refusals_total", "step_ahead"] == 1
        assert figures["mlrs_refusals_total", "stale_handle"] == 1
        assert figures["mlrs_refusals_total", "run_not_found"] == 1
        assert figures["mlrs_refusals_total", "internal"] == 0
        assert figures["mlrs_answer_seconds_count", ""] == 2
        assert 0 < figures["mlrs_answer_seconds_sum", ""] < TIMEOUT
        assert figures["mlrs_runs_live", ""] == 2
        assert figures["mlrs_streams", ""] == 1
        assert figures["mlrs_store_up", ""] == 1
        assert figures["mlrs_flush_seconds_count", ""] == stores[0].calls.count("append") >= 1
        assert 0 < figures["mlrs_flush_seconds_sum", ""] < TIMEOUT
        assert figures["mlrs_flush_failures_total", ""] == 0
        assert 0 <= figures["mlrs_seconds_since_durable_flush", ""] < TIMEOUT
        assert 2**20 < figures["mlrs_resident_memory_bytes", ""] < 2**36
        call.cancel()
        await stub.DeleteRun(pb.DeleteRunRequest(run_id="b"))  # type: ignore[misc]
        async with asyncio.timeout(TIMEOUT):
            while figures["mlrs_streams", ""] or figures["mlrs_runs_live", ""] != 1:
                figures = await scraped(metrics_at[0])


async def test_a_refused_call_counts_once(tmp_path: Path, model_file: Path, metrics_at: list[str]) -> None:
    """A refused `Advise` counts as one refusal and no answer, for every reason."""
    async with service(tmp_path / "d", model_file, metrics="127.0.0.1:0") as (stub, _):
        await create(stub, "a")
        for step, loss in ((0, 1.0), (0, 2.0), (9, 1.0), (0, 1.0)):
            call: Any = stub.Advise(pb.AdviseRequest(run_id="a", step=step, loss=loss), timeout=TIMEOUT)
            if (step, loss) == (0, 1.0):
                await call
            else:
                await refused(call)
        figures = await scraped(metrics_at[0])
        assert figures["mlrs_refusals_total", "stale_step"] == 1
        assert figures["mlrs_refusals_total", "step_ahead"] == 1
        assert figures["mlrs_advice_total", "fresh"] == 1
        assert figures["mlrs_advice_total", "replayed"] == 1


async def test_ranks_that_wait_are_counted(tmp_path: Path, model_file: Path, metrics_at: list[str]) -> None:
    """Ranks that wait for others count until they are answered or go away, steps until they are answered."""

    async def waits(steps: int, ranks: int) -> None:
        """Wait until metrics say that so many steps are open, with so many ranks."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                figures = await scraped(metrics_at[0])
                if (figures["mlrs_pending_barriers", ""], figures["mlrs_ranks_waiting", ""]) == (
                    steps,
                    ranks,
                ):
                    return

    def report(handle: int, rank: int) -> pb.StreamAdviceRequest:
        message = columns((handle, 0, 1.0 + rank))
        message.observations.rank_columns.ranks.append(rank)
        return message

    async with service(tmp_path / "d", model_file, metrics="127.0.0.1:0") as (stub, _):
        config = pb.RunConfig(horizon=50, ranks=pb.Ranks())
        one, two = [
            (await stub.OpenRun(pb.OpenRunRequest(run_id=name, config=config, world_size=3))).run_handle  # type: ignore[misc]
            for name in ("one", "two")
        ]
        await waits(0, 0)
        calls: list[Any] = [stub.StreamAdvice(timeout=TIMEOUT) for _ in range(4)]
        for call, handle, rank, now in zip(
            calls, (one, one, two), (0, 2, 1), ((1, 1), (1, 2), (2, 3)), strict=False
        ):
            await call.write(report(handle, rank))
            await waits(*now)
        calls[2].cancel()  # its report stays, and nobody waits for what comes of it
        await waits(2, 2)
        await calls[3].write(report(one, 1))
        for call in (calls[0], calls[1], calls[3]):
            assert not (await call.read()).advice.errors
        await waits(1, 0)
        for call in calls:
            call.cancel()


async def test_a_failing_store_is_reported(
    tmp_path: Path, model_file: Path, stores: list[FailingStore], metrics_at: list[str]
) -> None:
    """While flushes fail, the store is unhealthy and the rest is not; advice continues."""
    settings = {"metrics": "127.0.0.1:0", "flush_interval_s": 0.01}
    async with service(tmp_path / "d", model_file, **settings) as (stub, address):
        handle = await create(stub, "a")
        call: Any = stub.StreamAdvice(timeout=60)
        step = 0
        for works in (True, False, True, False, True):
            stores[0].failing = set() if works else {"append"}
            async with asyncio.timeout(TIMEOUT):
                while True:
                    await call.write(columns((handle, step, 1.0)))
                    answer = (await call.read()).advice
                    assert not answer.errors
                    step += 1
                    if await health(address, STORE) == (SERVING if works else NOT_SERVING) and step % 5 == 0:
                        break
            figures = await scraped(metrics_at[0])
            assert figures["mlrs_store_up", ""] == works
            assert await health(address) == await health(address, "") == SERVING
            if not works:
                assert figures["mlrs_flush_failures_total", ""] >= 1
                assert figures["mlrs_unflushed_answers", ""] >= 1
                assert answer.durable_steps[0] < step - 1
        await call.done_writing()


async def test_a_blocked_store_is_reported(
    tmp_path: Path, model_file: Path, stores: list[FailingStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a flush neither ends nor fails, the store is unhealthy after a while; once it ends, it is not."""
    monkeypatch.setattr(journal, "LATE_S", 0.2)
    async with service(tmp_path / "d", model_file, flush_interval_s=0.01) as (stub, address):
        handle = await create(stub, "a")
        call: Any = stub.StreamAdvice(timeout=60)
        stores[0].unblocked.clear()
        try:
            await call.write(columns((handle, 0, 1.0)))
            assert not (await call.read()).advice.errors
            async with asyncio.timeout(TIMEOUT):
                while await health(address, STORE) != NOT_SERVING:
                    pass
            assert await health(address) == SERVING
        finally:
            stores[0].unblocked.set()
        async with asyncio.timeout(TIMEOUT):
            while await health(address, STORE) != SERVING:
                pass
        await call.done_writing()


async def test_a_replica_with_nothing_to_store_reports_a_lost_database(
    tmp_path: Path, model_file: Path, postgres: PostgresServer, metrics_at: list[str]
) -> None:
    """Without a single run, a replica's store is unhealthy while the database refuses it, and no longer."""
    where = postgres.new_database()
    settings = {"metrics": "127.0.0.1:0", "store": where, "lease_s": 0.6}
    async with service(tmp_path / "d", model_file, **settings) as (_, address):
        for works in (True, False, True):
            let_in(postgres, where, works=works)
            async with asyncio.timeout(TIMEOUT):
                while await health(address, STORE) != (SERVING if works else NOT_SERVING):
                    pass
            assert (await scraped(metrics_at[0]))["mlrs_store_up", ""] == works
            assert await health(address) == await health(address, "") == SERVING


def let_in(postgres: PostgresServer, where: str, *, works: bool) -> None:
    """Have a server allow sessions of a database, or end them and refuse new ones."""
    name = where.rpartition("/")[2]
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {works}".encode())
        if not works:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
            )


async def test_a_taken_port_for_metrics_is_named(tmp_path: Path, model_file: Path) -> None:
    """If the address of metrics cannot be used, the start fails with its name, and leaves nothing behind."""
    for metrics in ("203.0.113.1:1", "no.such.host.invalid:9"):
        with raises(Reason.INVALID_FIELD, field="metrics", match="--metrics"):
            async with service(tmp_path / "d", model_file, metrics=metrics):
                pass
    async with service(tmp_path / "d", model_file):
        pass


def test_metrics_have_no_socket(tmp_path: Path) -> None:
    """A unix socket is refused for metrics: Prometheus reads HTTP over TCP."""
    from mlrs_server.config import load_config

    with pytest.raises(AdvisorError, match=r"metrics: must be HOST:PORT"):
        load_config(None, {"metrics": "unix:/x", "data_dir": tmp_path})
