"""The limits of tenants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlrs_proto import v1 as pb
from mlrs_server.auth import limits as limits_module
from mlrs_server.auth.limits import Limits, Usage
from mlrs_server.auth.quota import RunQuota
from mlrs_server.config import load_config
from mlrs_server.errors import AdvisorError, Reason
from tests.server.auth.tenants import Caller, tenants
from tests.server.support import columns, raises
from tests.support.daemon import write_random_model

Code = grpc.StatusCode


@asynccontextmanager
async def limited(tmp_path: Path, model_file: Path, **limits: Any) -> AsyncIterator[tuple[Caller, Caller]]:
    """Run a daemon where the tenant `small` has limits; yield a caller of it, and one with default limits."""
    settings = {"tenants": {"small": {"limits": limits}}}
    async with tenants(tmp_path / "d", model_file, **settings) as home:
        small, default = home.caller("small"), home.caller("default")
        await home.known(small, default)
        yield small, default


def check(refusal: Any, limit: str, value: int) -> None:
    """Check that a refusal names a limit, its value and its setting."""
    assert (refusal.code, refusal.reason) == (Code.RESOURCE_EXHAUSTED, "ERROR_REASON_TENANT_LIMIT")
    assert refusal.field == limit
    assert f"The limit is {value}: `{limit}` under [tenants.small.limits], or [limits]" in refusal.message


async def test_runs_are_limited(tmp_path: Path, model_file: Path) -> None:
    """Unfinished runs are limited; finishing one frees quota, resuming or restarting one uses none."""
    async with limited(tmp_path, model_file, max_runs=3) as (small, default):
        for name in "abc":
            await small.create(name)
        check(await small.refused("OpenRun", pb.OpenRunRequest(run_id="d")), "max_runs", 3)
        await small.create("a")
        await small.call("FinishRun", pb.FinishRunRequest(run_id="a"))
        await _until_created(small, "d")
        batch = pb.BatchOpenRunsRequest(requests=[pb.OpenRunRequest(run_id=name) for name in "bef"])
        check(await small.refused("BatchOpenRuns", batch), "max_runs", 3)
        restart = pb.OpenRunRequest(run_id="a", mode=pb.OPEN_MODE_RESTART)
        check(await small.refused("OpenRun", restart), "max_runs", 3)
        restart.run_id = "b"
        await small.call("OpenRun", restart)
        await small.call("DeleteRun", pb.DeleteRunRequest(run_id="b"))
        await _until_created(small, "e")
        for index in range(5):
            await default.create(f"run-{index}")


async def _until_created(caller: Caller, run_id: str) -> None:
    """Open a run as soon as there is quota: runs are not counted at every call."""
    async with asyncio.timeout(20):
        while True:
            try:
                await caller.create(run_id)
            except grpc.aio.AioRpcError as error:
                if error.code() != Code.RESOURCE_EXHAUSTED:
                    raise
                await asyncio.sleep(0.01)
            else:
                return


async def test_runs_of_before_a_restart_count(tmp_path: Path, model_file: Path) -> None:
    """Stored runs count, in memory or not."""
    for name, created in (("a", True), ("b", True), ("c", False)):
        async with limited(tmp_path, model_file, max_runs=2) as (small, _):
            request = pb.OpenRunRequest(run_id=name)
            if created:
                await small.call("OpenRun", request)
            else:
                check(await small.refused("OpenRun", request), "max_runs", 2)


async def _reserve(quota: RunQuota, names: list[str]) -> None:
    """Reserve quota for runs, which are stored at once."""
    async with quota.reserved(names):
        pass


async def test_runs_are_not_counted_at_every_call() -> None:
    """A tenant's runs are counted once while far from the limit, and again at it, after a pause."""
    asked: list[str] = []
    stored = 5

    async def count(tenant: str) -> int:
        asked.append(tenant)
        await asyncio.sleep(0.02)
        return stored

    quota = RunQuota(lambda _: Limits(max_runs=8), count)
    for index in range(3):
        await _reserve(quota, [f"t!{index}"])
    assert asked == ["t"]
    for _ in range(5):
        with raises(Reason.TENANT_LIMIT, field="max_runs"):
            await _reserve(quota, ["t!x"])
    assert len(asked) <= 2
    async with asyncio.timeout(20):
        while len(asked) < 2:  # some of them finished meanwhile
            await asyncio.sleep(0.01)
            try:
                await _reserve(quota, ["t!x"])
            except Exception:  # noqa: BLE001, S112  # not yet
                continue
    await _reserve(quota, ["u!x", "u!y"])
    assert asked[-1] == "u"


async def test_concurrent_calls_share_the_limit(tmp_path: Path, model_file: Path) -> None:
    """Concurrent batches create as many runs as the limit allows, and no more."""
    async with limited(tmp_path, model_file, max_runs=100) as (small, _):

        async def create(batch: int) -> bool:
            names = [f"run-{batch}-{index}" for index in range(50)]
            requests = [pb.OpenRunRequest(run_id=name) for name in names]
            try:
                await small.call("BatchOpenRuns", pb.BatchOpenRunsRequest(requests=requests))
            except grpc.aio.AioRpcError as error:
                if error.code() != Code.RESOURCE_EXHAUSTED:
                    raise
                return False
            return True

        assert sum(await asyncio.gather(*map(create, range(20)))) == 2
        (listed,) = await small.call("ListRuns", pb.ListRunsRequest(page_size=1000))
        assert len(listed.runs) == 100


async def test_reserved_runs_count() -> None:
    """A count includes the runs that another call has reserved and not stored yet."""

    async def count(_tenant: str) -> int:
        return 0

    quota = RunQuota(lambda _: Limits(max_runs=8), count)
    names = [f"t!{index}" for index in range(8)]
    async with quota.reserved(names):
        with raises(Reason.TENANT_LIMIT, field="max_runs"):
            await _reserve(quota, ["t!x"])
    async with asyncio.timeout(20):
        while True:  # none of them was stored after all
            try:
                await _reserve(quota, names)
            except AdvisorError:
                await asyncio.sleep(0.001)
            else:
                return


async def test_a_finished_run_that_is_rewound_counts(tmp_path: Path, model_file: Path) -> None:
    """A finished run that is rewound is unfinished again, and needs quota."""
    async with limited(tmp_path, model_file, max_runs=1) as (small, _):
        await small.create("a")
        await small.call("FinishRun", pb.FinishRunRequest(run_id="a"))
        await _until_created(small, "b")
        again = pb.OpenRunRequest(run_id="a", resume_from=0)
        check(await small.refused("OpenRun", again), "max_runs", 1)
        await small.call("OpenRun", pb.OpenRunRequest(run_id="b", resume_from=0))


@pytest.mark.parametrize("rpc", ["StreamAdvice", "WatchRun", "ImportModel"])
async def test_streams_are_limited(tmp_path: Path, model_file: Path, rpc: str) -> None:
    """Open streams of any kind are limited; one that ends frees quota, and other tenants have their own."""
    async with limited(tmp_path, model_file, max_streams=2) as (small, default):
        handle = await small.create("a")
        streams = [small.stream() for _ in range(2)]
        for stream in streams:
            await stream.write(columns((handle, 0, 1.0)))
            await stream.read()
        messages = {
            "StreamAdvice": [columns((handle, 0, 1.0))],
            "WatchRun": [pb.WatchRunRequest(run_id="a")],
            "ImportModel": [pb.ImportModelRequest()],
        }[rpc]
        check(await small.refused(rpc, *messages), "max_streams", 2)
        other = await default.create("a")
        assert await default.call("StreamAdvice", columns((other, 0, 1.0)))
        await streams[0].done_writing()
        assert await streams[0].read() is grpc.aio.EOF
        assert await small.call("StreamAdvice", columns((handle, 0, 1.0)))
        streams[1].cancel()


async def test_models_are_limited(tmp_path: Path, model_file: Path) -> None:
    """A model's file over the limit is refused during the upload, and nothing of it is left."""
    data = write_random_model(tmp_path / "m.safetensors", seed=9).read_bytes()
    size = len(data)
    async with limited(tmp_path, model_file, max_model_bytes=size) as (small, _):
        await small.import_model(data, "fits")
    async with limited(tmp_path, model_file, max_model_bytes=size - 1) as (small, default):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await small.import_model(data, "large")
        assert f"The limit is {size - 1:g}" in (caught.value.details() or "")
        assert caught.value.code() == Code.RESOURCE_EXHAUSTED
        (listed,) = await small.call("ListModels", pb.ListModelsRequest())
        assert "large" not in [model.name for model in listed.models]
        await default.import_model(data, "large")


# -------------------------------------------------------------------------------- the rate


class Clock:
    """A clock that tests and sleeps advance."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Advance the time."""
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Have the rate use the test's clock."""
    clock = Clock()
    monkeypatch.setattr(limits_module, "time", clock)
    monkeypatch.setattr(limits_module, "asyncio", clock)
    return clock


async def test_a_steady_stream_is_slowed_to_the_rate(clock: Clock) -> None:
    """A burst of one second's messages is not delayed; later ones are delayed to the rate, and none fails."""
    usage = Usage("small", Limits(max_messages_per_s=10))
    for _ in range(10):
        assert usage.take()
    began = clock.now
    for _ in range(50):
        if not usage.take():
            await usage.throttle()
    assert clock.now - began == pytest.approx(5.0, abs=0.11)
    assert max(clock.slept) <= 0.11


async def test_a_flood_fails_after_a_second(clock: Clock) -> None:
    """Messages that would wait more than a second are refused, and do not count against the others."""
    usage = Usage("small", Limits(max_messages_per_s=10))
    waiting = refused = 0
    for _ in range(100):  # all at one moment
        if usage.take():
            continue
        if -usage._left / 10 <= 1:
            waiting += 1
            continue
        refused += 1
        with raises(Reason.TENANT_LIMIT, field="max_messages_per_s", match="under .tenants.small.limits"):
            await usage.throttle()
    assert (waiting, refused) == (10, 80)
    clock.now += 2
    assert usage.take()


async def test_an_idle_tenant_has_a_burst_of_one_second(clock: Clock) -> None:
    """After an idle hour a burst is one second's messages, two at most."""
    usage = Usage("", Limits(max_messages_per_s=10))
    clock.now += 3600
    free = 0
    while usage.take():
        free += 1
    assert 10 <= free <= 20


async def test_the_rate_holds_over_the_wire(tmp_path: Path, model_file: Path) -> None:
    """A client that floods is refused, on calls and on streams; another tenant is served meanwhile."""
    async with limited(tmp_path, model_file, max_messages_per_s=20) as (small, default):
        handle, other = await small.create("a"), await default.create("a")
        floods = [
            small.call("Advise", pb.AdviseRequest(run_id="a", step=0, loss=1.0)) for _ in range(100)
        ] + [small.call("StreamAdvice", columns((handle, 0, 1.0))) for _ in range(20)]
        outcomes = asyncio.gather(*floods, return_exceptions=True)
        for step in range(20):
            (answer,) = await default.call("StreamAdvice", columns((other, step, 1.0)))
            assert not answer.advice.errors
        got = await outcomes
        errors = [error for error in got if isinstance(error, grpc.aio.AioRpcError)]
        assert {error.code() for error in errors} == {Code.RESOURCE_EXHAUSTED}
        assert all("max_messages_per_s" in (error.details() or "") for error in errors)
        assert 20 <= len(got) - len(errors) <= 100


# -------------------------------------------------------------------------------- settings


def test_limits_come_from_the_file(tmp_path: Path) -> None:
    """[limits] is for all tenants, and [tenants.NAME.limits] changes some of it for one."""
    file = tmp_path / "mlrs.toml"
    file.write_text(
        "[limits]\nmax_runs = 7\nmax_streams = 8\n"
        "[tenants.acme.limits]\nmax_runs = 1\nmax_messages_per_s = 2.5\n[tenants.other]\n"
    )
    config = load_config(file, {})
    everyone, acme = config.limits_of(""), config.limits_of("acme")
    assert (everyone.max_runs, everyone.max_streams) == (7, 8)
    assert (acme.max_runs, acme.max_streams, acme.max_messages_per_s) == (1, 8, 2.5)
    assert config.limits_of("other") == config.limits_of("unknown") == everyone
    assert everyone.max_messages_per_s == Limits().max_messages_per_s


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[limits]\nmax_runs = -1", r"limits\.max_runs: .*\(in the file\)"),
        ("[limits]\nmax_run = 1", r"limits\.max_run: Extra inputs"),
        ("[tenants.acme.limits]\nmax_streams = 'x'", r"tenants\.acme\.limits\.max_streams: "),
        ("[tenants.acme.limit]\nmax_streams = 1", r"tenants\.acme\.limit: Extra"),
        ("[tenants.ACME.limits]\nmax_streams = 1", "tenants: .*must be 1 to 32 of a-z"),
        ("limits = 3", "limits: "),
        ("[limits]\nmax_messages_per_s = 0", "max_messages_per_s"),
    ],
)
def test_wrong_limits_are_named(tmp_path: Path, text: str, says: str) -> None:
    """A limit that is misspelt or out of range is named by its position in the file."""
    file = tmp_path / "mlrs.toml"
    file.write_text(text)
    with raises(Reason.INVALID_FIELD, match=says):
        load_config(file, {})
