"""Lists of runs over the wire: filters, orders and pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlrs_proto import v1 as pb
from mlrs_server.rpc.convert import lists
from tests.server.support import advised, create, refused, service
from tests.support.daemon import write_random_model

Code = grpc.StatusCode
ORDERS = ("run_id", "update_time desc", "create_time desc")


@pytest.fixture
async def stub(tmp_path: Path, model_file: Path) -> AsyncIterator[Any]:
    """A daemon's stub."""
    async with service(tmp_path / "d", model_file) as (connected, _):
        yield connected


async def listed(stub: Any, size: int = 2, **chosen: Any) -> list[str]:
    """Return the ids of a list, page by page."""
    found, token = list[str](), ""
    while not found or token:
        page = await stub.ListRuns(pb.ListRunsRequest(page_size=size, page_token=token, **chosen))
        found += [run.run_id for run in page.runs]
        token = page.next_page_token
        if not page.runs:
            break
    return found


async def test_lists_are_filtered(stub: Any, tmp_path: Path) -> None:
    """Each filter leaves the runs that have all that is asked for, and filters work together."""
    data = write_random_model(tmp_path / "mine.safetensors", seed=7).read_bytes()
    header = pb.ImportModelRequest(header=pb.ImportModelHeader(name="mine"))
    model = (await stub.ImportModel(iter([header, pb.ImportModelRequest(chunk=data)]))).model
    runs: dict[str, dict[str, Any]] = {
        "cifar/a_1": {"task": "cifar", "tags": {"team": "vision", "seed": "1"}},
        "cifar/a-1": {"task": "cifar", "tags": {"team": "vision", "seed": "2"}},
        "lm/1": {"task": "lm", "tags": {"team": "language"}, "config": pb.RunConfig(model="mine")},
        "lm/2": {
            "task": "lm",
            "config": pb.RunConfig(schedule=pb.Schedule(cosine=pb.Schedule.Cosine()), horizon=9),
        },
        "own": {},
    }
    for run_id, fields in runs.items():
        await stub.OpenRun(pb.OpenRunRequest(run_id=run_id, **fields))
    await stub.FinishRun(pb.FinishRunRequest(run_id="lm/1"))
    vision = ["cifar/a-1", "cifar/a_1"]
    expected: list[tuple[dict[str, Any], list[str]]] = [
        ({"contains": "a_1"}, ["cifar/a_1"]),
        ({"contains": "%"}, []),
        ({"contains": "\\"}, []),
        ({"contains": "/1"}, ["lm/1"]),
        ({"prefix": "lm_"}, []),
        ({"task": "cifar"}, vision),
        ({"task": "own"}, ["own"]),
        ({"task": "cif"}, []),
        ({"model": "mine"}, ["lm/1"]),
        ({"model": f"mine@{model.digest[:8]}"}, ["lm/1"]),
        ({"model": f"mine@{model.digest}"}, ["lm/1"]),
        ({"model": f"mine@{'0' * 8}"}, []),
        ({"model": "cosine"}, []),
        ({"model": "mine", "status": pb.RUN_STATUS_FINISHED}, ["lm/1"]),
        ({"tags": {"team": "vision"}}, vision),
        ({"tags": {"team": ""}}, [*vision, "lm/1"]),
        ({"tags": {"team": "vision", "seed": "2"}}, ["cifar/a-1"]),
        ({"tags": {"none": ""}}, []),
        ({"tags": {"team": ""}, "contains": "1", "task": "cifar", "prefix": "cifar/a-"}, ["cifar/a-1"]),
    ]
    for chosen, wanted in expected:
        for order in ORDERS:
            found = await listed(stub, order_by=order, **chosen)
            assert sorted(found) == wanted, (chosen, order)


async def test_runs_come_by_creation(stub: Any) -> None:
    """The newest run comes first; observations change nothing, and later runs are not on later pages."""
    names = ["b", "a", "d", "c", "e"]
    for name in names:
        await create(stub, name)
    await advised(stub, "b", [1.0])
    page = await stub.ListRuns(pb.ListRunsRequest(page_size=2, order_by=" create_time  desc"))
    assert [run.run_id for run in page.runs] == ["e", "c"]
    await create(stub, "late")
    token, found = page.next_page_token, list[str]()
    while token:
        request = pb.ListRunsRequest(page_size=2, order_by="create_time desc", page_token=token)
        page = await stub.ListRuns(request)
        found += [run.run_id for run in page.runs]
        token = page.next_page_token
    assert found == ["d", "a", "b"]
    assert await listed(stub, order_by="create_time desc") == ["late", *names[::-1]]


@pytest.mark.parametrize("order", ORDERS)
async def test_a_token_is_of_one_order(stub: Any, order: str) -> None:
    """The token of a list in another order is refused by the name of its field."""
    for name in "abc":
        await create(stub, name)
    page = await stub.ListRuns(pb.ListRunsRequest(page_size=1, order_by=order))
    for other in ORDERS:
        request = pb.ListRunsRequest(page_size=1, order_by=other, page_token=page.next_page_token)
        if other == order:
            assert len((await stub.ListRuns(request)).runs) == 1
        else:
            refusal = await refused(stub.ListRuns(request))
            assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, "page_token")
            assert "list from the beginning" in refusal.message


@pytest.mark.parametrize(
    ("chosen", "field", "says"),
    [
        ({"model": "m@1234567"}, "model", "8 to 64"),
        ({"model": "m@"}, "model", "8 to 64"),
        ({"model": "m@not-hexadecimal"}, "model", "'m@not-hexadecimal'"),
        ({"model": "\x00"}, "model", "'\\x00'"),
        ({"task": "not an id"}, "task", "letters, digits"),
        ({"tags": {"not a name": ""}}, "tags", "'not a name'"),
        ({"tags": {"a": "\x00"}}, "tags", "no control characters"),
        ({"tags": {"a": "v" * 257}}, "tags", "at most 256"),
        ({"order_by": "create_time"}, "order_by", "create_time desc"),
        *[
            ({"order_by": "create_time desc", "page_token": token}, "page_token", "from the beginning")
            for token in (
                "a",
                "create nan a",
                "create 0x1p0 !",
                "create x a",
                "create 0x1p0 0x1p0 a",
                "create",
            )
        ],
    ],
)
async def test_wrong_filters_are_named(stub: Any, chosen: dict[str, Any], field: str, says: str) -> None:
    """A filter that cannot be meant is refused by its field's name."""
    refusal = await refused(stub.ListRuns(pb.ListRunsRequest(**chosen)))
    assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, field)
    assert says in refusal.message


async def test_filters_of_any_characters_fail_nothing(stub: Any) -> None:
    """A part of an id that no id can have finds nothing."""
    await create(stub, "a")
    for text in ("\x00", "é", "!", "\ud7ff", "a" * 10_000, "'; DROP TABLE runs; --"):
        for order in ORDERS:
            assert await listed(stub, contains=text, order_by=order) == []
    assert await listed(stub) == ["a"]


async def test_a_page_fits_into_a_message(stub: Any) -> None:
    """Pages of runs with long notes are shorter than asked for; no run is missed. Batches have no notes."""
    note = "\N{PILE OF POO}" * 4096
    names = [f"run-{index:03}" for index in range(300)]
    for start in range(0, 300, 100):
        requests = [pb.OpenRunRequest(run_id=name, note=note) for name in names[start : start + 100]]
        await stub.BatchOpenRuns(pb.BatchOpenRunsRequest(requests=requests))
    page = await stub.ListRuns(pb.ListRunsRequest(page_size=1000))
    assert len(page.runs) == -(-lists.MAX_TEXT_BYTES // len(note.encode()))
    assert await listed(stub, 1000) == names
    again = [pb.OpenRunRequest(run_id=name, mode=pb.OPEN_MODE_RESUME) for name in names]
    opened = await stub.BatchOpenRuns(pb.BatchOpenRunsRequest(requests=again))
    assert [(one.run.run_id, one.run.note) for one in opened.responses] == [(name, "") for name in names]
    finished = await stub.BatchFinishRuns(pb.BatchFinishRunsRequest(run_ids=names))
    assert [(run.run_id, run.note) for run in finished.runs] == [(name, "") for name in names]
