"""Tags and notes of runs over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlrs_proto import v1 as pb
from tests.server.support import LOSSES, advised, create, refused, service
from tests.support.postgres import PostgresServer

Code = grpc.StatusCode
TEXT = "<img onerror=x> \N{SNOWMAN} %_\\ [red]"
"""Text that means something elsewhere."""


@pytest.fixture
async def stub(tmp_path: Path, model_file: Path) -> AsyncIterator[Any]:
    """A daemon's stub."""
    async with service(tmp_path / "d", model_file) as (connected, _):
        yield connected


async def opened(stub: Any, run_id: str, **fields: Any) -> pb.Run:
    """Open a run; return it."""
    response = await stub.OpenRun(pb.OpenRunRequest(run_id=run_id, **fields), timeout=20)
    run: pb.Run = response.run
    return run


async def updated(stub: Any, run_id: str, **fields: Any) -> pb.Run:
    """Change a run; return it."""
    response = await stub.UpdateRun(pb.UpdateRunRequest(run_id=run_id, **fields), timeout=20)
    run: pb.Run = response.run
    return run


async def got(stub: Any, run_id: str) -> pb.Run:
    """Read a run."""
    run: pb.Run = (await stub.GetRun(pb.GetRunRequest(run_id=run_id), timeout=20)).run
    return run


async def test_a_new_run_has_the_tags_and_the_note_that_it_is_opened_with(stub: Any) -> None:
    """Every answer about one run has them, unchanged to the character; answers about many runs have none."""
    noted = {"tags": {"team": TEXT, "empty": ""}, "note": f"{TEXT}\n\ttwo"}
    runs = [await opened(stub, "a", **noted), await got(stub, "a")]
    runs += (await stub.ListRuns(pb.ListRunsRequest())).runs
    request = pb.OpenRunRequest(run_id="b", **noted)
    (one,) = (await stub.BatchOpenRuns(pb.BatchOpenRunsRequest(requests=[request]))).responses
    assert (dict(one.run.tags), one.run.note) == ({}, "")
    runs.append(await got(stub, "b"))
    runs.append((await stub.FinishRun(pb.FinishRunRequest(run_id="a"))).run)
    async for chunk in stub.WatchRun(pb.WatchRunRequest(run_id="a")):
        runs.append(chunk.run)
    assert len(runs) >= 6
    assert all((dict(run.tags), run.note) == (noted["tags"], noted["note"]) for run in runs)


async def test_a_run_that_exists_keeps_its_own(stub: Any) -> None:
    """Opening it with other tags changes nothing and is no mismatch; beginning it anew does not, either.

    A run that is dropped and created again has the new ones.
    """
    await opened(stub, "a", tags={"x": "1"}, note="first")
    other = {"tags": {"y": "2"}, "note": "second"}
    for mode in (pb.OPEN_MODE_UNSPECIFIED, pb.OPEN_MODE_RESUME, pb.OPEN_MODE_BEGIN):
        run = await opened(stub, "a", mode=mode, **other)
        assert (dict(run.tags), run.note) == ({"x": "1"}, "first")
    await advised(stub, "a", LOSSES[:3])
    run = await opened(stub, "a", resume_from=1, **other)
    assert (dict(run.tags), run.note, run.next_step) == ({"x": "1"}, "first", 1)
    run = await opened(stub, "a", mode=pb.OPEN_MODE_RESTART, **other)
    assert (dict(run.tags), run.note) == ({"y": "2"}, "second")


async def test_a_run_is_changed_while_it_is_advised(stub: Any) -> None:
    """A change leaves the run's handle valid and its advice the same, and is seen at once."""
    handle = await create(stub, "a", horizon=50)
    await create(stub, "plain", horizon=50)
    expected, lrs = await advised(stub, "plain", LOSSES[:12]), list[float]()
    for step in range(12):
        run = await updated(
            stub, "a", set_tags={f"t{step}": f"{step}", "last": f"{step}"}, note=f"step {step}"
        )
        assert (run.tags["last"], len(run.tags), run.note) == (f"{step}", step + 2, f"step {step}")
        assert run.next_step == step
        lrs += await advised(stub, "a", LOSSES[step : step + 1], start=step)
    assert lrs == expected
    run = await updated(stub, "a", remove_tags=[f"t{step}" for step in range(12)] + ["none"], note="")
    assert (dict(run.tags), run.note, run.next_step) == ({"last": "11"}, "", 12)
    assert await got(stub, "a") == run
    assert (await stub.OpenRun(pb.OpenRunRequest(run_id="a"))).run_handle == handle
    assert (await updated(stub, "a")).tags == run.tags


async def test_a_finished_run_can_be_noted(stub: Any) -> None:
    """Tags and notes are for people, who look at runs when they are over."""
    await opened(stub, "a")
    await stub.FinishRun(pb.FinishRunRequest(run_id="a"))
    run = await updated(stub, "a", set_tags={"keep": ""}, note="the best one")
    assert (run.status, dict(run.tags), run.note) == (pb.RUN_STATUS_FINISHED, {"keep": ""}, "the best one")


LONG = {"n" * 64: "v" * 256}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    # fields of a request, the field that is named, what is said
    ({"tags": {"": "x"}}, "tags", "1 to 64 characters"),
    ({"tags": {"n" * 65: "x"}}, "tags", "1 to 64 characters"),
    ({"tags": {"a b": "x"}}, "tags", "letters, digits and any of ._-/"),
    ({"tags": {"é": "x"}}, "tags", "letters, digits and any of ._-/"),
    ({"tags": {".a": "x"}}, "tags", "beginning with a letter or digit"),
    ({"tags": {"a\n": "x"}}, "tags", "'a\\n'"),
    ({"tags": {"a": "v" * 257}}, "tags", "the value of tag 'a' must have at most 256 characters, has 257"),
    ({"tags": {"a": "x\x1b[31m"}}, "tags", "'x\\x1b[31m'"),
    ({"tags": {"a": "x\ny"}}, "tags", "no control characters"),
    ({"tags": {"a": "\x00"}}, "tags", "no control characters"),
    ({"tags": {f"t{n}": "" for n in range(33)}}, "tags", "at most 32 tags"),
    ({"note": "n" * 4097}, "note", "at most 4096 characters, has 4097"),
    ({"note": "a\x1b[2J"}, "note", "has '\\x1b'"),
    ({"note": "\x9b31m"}, "note", "has '\\x9b'"),
    ({"note": "\x00"}, "note", "has '\\x00'"),
]


@pytest.mark.parametrize(("fields", "field", "says"), WRONG)
async def test_what_is_wrong_is_named(stub: Any, fields: dict[str, Any], field: str, says: str) -> None:
    """A malformed tag or note is refused, in a new run and in a change, and leaves all as it was."""
    await opened(stub, "a", tags=LONG, note="n" * 4096)
    update = {"set_tags" if name == "tags" else name: value for name, value in fields.items()}
    calls = [
        (stub.OpenRun(pb.OpenRunRequest(run_id="new", **fields)), field),
        (stub.UpdateRun(pb.UpdateRunRequest(run_id="a", **update)), field.replace("tags", "set_tags")),
    ]
    for call, named in calls:
        refusal = await refused(call)
        assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, named)
        assert says in refusal.message
    assert [run.run_id for run in (await stub.ListRuns(pb.ListRunsRequest())).runs] == ["a"]
    assert (dict((await got(stub, "a")).tags), (await got(stub, "a")).note) == (LONG, "n" * 4096)


async def test_wrong_changes_are_named(stub: Any) -> None:
    """An unknown run, a name to remove that is none, and a tag that is set and removed are refused."""
    await opened(stub, "a", tags={"x": "1"})
    for fields, code, field in [
        ({"run_id": "nobody", "note": "x"}, Code.NOT_FOUND, "run_id"),
        ({"run_id": "not an id"}, Code.INVALID_ARGUMENT, "run_id"),
        ({"run_id": "a", "remove_tags": ["x", "not a name"]}, Code.INVALID_ARGUMENT, "remove_tags"),
        ({"run_id": "a", "remove_tags": ["x"], "set_tags": {"x": "2"}}, Code.INVALID_ARGUMENT, "remove_tags"),
    ]:
        refusal = await refused(stub.UpdateRun(pb.UpdateRunRequest(**fields)))
        assert (refusal.code, refusal.field) == (code, field)
    assert dict((await got(stub, "a")).tags) == {"x": "1"}


async def test_any_replica_changes_any_run(
    tmp_path: Path, model_file: Path, postgres: PostgresServer
) -> None:
    """Replicas that change one run at once, one of them its owner, lose nothing; its advice goes on."""
    url = postgres.new_database()
    async with AsyncExitStack() as running:
        owner, other = [
            (await running.enter_async_context(service(tmp_path / name, model_file, store=url)))[0]
            for name in ("first", "second")
        ]
        await create(owner, "a", horizon=50)

        async def adding(stub: Any, letter: str) -> None:
            for number in range(10):
                await updated(stub, "a", set_tags={f"{letter}{number}": f"{number}"})

        lrs, *_ = await asyncio.gather(
            advised(owner, "a", LOSSES[:20]), adding(owner, "o"), adding(other, "s")
        )
        tags = {f"{letter}{number}": f"{number}" for letter in "os" for number in range(10)}
        for stub in (owner, other):
            assert dict((await got(stub, "a")).tags) == tags
        await create(owner, "plain", horizon=50)
        assert lrs == await advised(owner, "plain", LOSSES[:20])
